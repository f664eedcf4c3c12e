"""End-to-end tests of conversions: from a link in a mail through the landing page to a lead on the campaign page."""

from functools import partial

from tests.e2e import steps
from tests.e2e.installation import RunningInstallation
from tests.e2e.visitor import Visitor, eventually


def test_a_mail_click_becomes_a_lead(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=2)
    steps.run_preflight(owner, plan)
    steps.launch(owner, plan)
    mail = steps.parse_mail(eventually(partial(installation.mails_to, plan.people[0]))[0])
    reader = Visitor(installation.base, X_Forwarded_For="81.2.69.161")
    landing = reader.get(mail.links[1])
    assert landing.url.startswith(f"{plan.landing}?k=")
    reader.get(landing.image("/v/"))
    form = landing.form()
    for _ in range(2):  # A repeated POST is the same submission.
        thanks = reader.submit(form, email=plan.people[0], first_name="Ana")
        assert "Thank you" in thanks.text

    def counted() -> bool:
        text = steps.performance_text(owner, plan)
        assert "1 new leads of this campaign" in text
        assert "1 goals reached" in text
        assert "1 clickers ÷ 2 trackable recipients" in text  # A submitted form labels its click as human.
        return "Page views by people, of all 1 / 1" in text

    eventually(counted)
    assert plan.people[0] in owner.get("/leads").text


def test_an_unknown_visitor_becomes_a_contact_with_consent(installation: RunningInstallation, owner: Visitor) -> None:
    plan = steps.create_plan(owner, people=1)
    visitor = Visitor(installation.base, X_Forwarded_For="81.2.69.162")
    address = plan.people[0].replace("@", ".new@")
    form = visitor.get(plan.landing).form()
    assert "Thank you" in visitor.submit(form, email=address, consent="y").text
    eventually(lambda: "1 goals reached" in steps.performance_text(owner, plan))
    assert address in owner.get("/contacts").text
