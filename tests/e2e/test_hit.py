"""End-to-end tests of hits: from a pixel or link in a real mail to the labels on the performance page."""

import time
from functools import partial

from tests.e2e import steps
from tests.e2e.installation import RunningInstallation
from tests.e2e.visitor import Visitor, eventually

APPLE = "Mozilla/5.0"


def test_people_and_machines_are_distinguished(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=3)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    human, prefetched, scanned = (
        steps.parse_mail(eventually(partial(installation.mails_to, address))[0]) for address in plan.people
    )
    eventually(lambda: "Sent 3" in owner.get(f"{plan.email}/progress").text)

    Visitor(installation.base, X_Forwarded_For="17.58.1.10", User_Agent=APPLE).get(prefetched.pixel_url)
    gateway = Visitor(installation.base, X_Forwarded_For="104.47.3.3", User_Agent="python-requests/2.34")
    for link in scanned.links:
        gateway.get(link, follow=False)
    time.sleep(1.5)  # 90 seconds after the mail arrived, as TIME_SCALE counts.
    reader = Visitor(installation.base, X_Forwarded_For="81.2.69.160", Sec_Fetch_User="?1")
    assert reader.get(human.pixel_url).headers["Content-Type"] == "image/gif"
    time.sleep(1.5)  # People read before they click.
    response = reader.get(human.links[0], follow=False)
    assert response.status == 302
    assert response.headers["Location"] == "https://kettle.example/blog"

    def settled() -> bool:
        text = steps.performance_text(owner, plan)
        assert "1 clickers ÷ 3 trackable recipients" in text
        assert "1 openers ÷ 3 trackable recipients" in text
        return "Human 1 Settling 0 Machine 0 Scanner 2" in text and "Machine 1" in text

    eventually(settled)


def test_an_altered_token_is_refused(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=1)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    mail = steps.parse_mail(eventually(partial(installation.mails_to, plan.people[0]))[0])
    stranger = Visitor(installation.base)
    token = mail.pixel_url.rsplit("/", 1)[1]
    altered = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    assert stranger.get(f"/o/{altered}").status == 200  # The same image, but the hit is not recorded.
    assert stranger.get(f"/c/{altered}/1", follow=False).status == 404
    assert stranger.get(f"/c/{token[:10]}/1", follow=False).status == 404
    assert stranger.get(f"/u/{token}", follow=False).status in (400, 404, 410)
