"""End-to-end tests of sending: from the launch button to the mailbox, with every recipient accounted for."""

from functools import partial

from tests.e2e import steps
from tests.e2e.installation import RunningInstallation
from tests.e2e.visitor import Visitor, eventually


def test_every_recipient_gets_one_mail(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=4)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    for index, address in enumerate(plan.people):
        mail = steps.parse_mail(eventually(partial(installation.mails_to, address))[0])
        assert mail.message["Subject"] == f"Ana{index}, your box"
        assert f"Dear Ana{index} of Batumi" in mail.html
        assert mail.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    eventually(lambda: "Sent 4" in owner.get(f"{plan.email}/progress").text)
    assert [len(installation.mails_to(address)) for address in plan.people] == [1, 1, 1, 1]


def test_a_launch_needs_a_preflight_and_happens_once(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=1)
    button = owner.get(plan.email).form("/launch")
    assert "Run the preflight first" in owner.submit(button).text
    steps.run_preflight(owner, plan)
    owner.submit(button)
    assert "launched already" in owner.submit(button).text.lower() or "already" in owner.submit(button).text
    eventually(partial(installation.mails_to, plan.people[0]))
    eventually(lambda: "Sent 1" in owner.get(f"{plan.email}/progress").text)
    assert len(installation.mails_to(plan.people[0])) == 1


def test_unsubscribed_contacts_are_excluded(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=2)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    mail = steps.parse_mail(eventually(partial(installation.mails_to, plan.people[0]))[0])
    provider = Visitor(installation.base)
    one_click = mail.message["List-Unsubscribe"].strip("<>")
    assert provider.get(one_click).status == 200  # A GET changes nothing.
    assert provider.post(one_click, {"List-Unsubscribe": "One-Click"}, follow=False).status == 200
    assert plan.people[0] in owner.get("/suppressions").text
    second = steps.add_mailing(owner, plan, "A second letter")
    assert "Suppressed: Unsubscribed 1" in steps.run_preflight(owner, second).text
    steps.launch(owner, second)
    eventually(lambda: len(installation.mails_to(plan.people[1])) == 2)
    eventually(lambda: "Skipped 1" in owner.get(f"{second.email}/progress").text)
    assert len(installation.mails_to(plan.people[0])) == 1


def test_a_test_mail_is_sent_to_oneself(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=1)
    before = len(installation.mails_to(steps.OWNER))
    owner.submit(owner.get(plan.message).form("/test-mail"))
    mail = eventually(lambda: installation.mails_to(steps.OWNER)[before:])[0]
    assert "your box" in mail.subject
    assert f"/catcher/{mail.id}" in owner.get("/catcher").html
