"""Send: from the launch button to the inbox, with every recipient accounted for."""

from functools import partial

from tests.flows import company
from tests.flows.running import RunningHouse
from tests.flows.visitor import Visitor, eventually


def test_from_a_spreadsheet_to_the_inbox(house: RunningHouse, owner: Visitor) -> None:
    plan = company.plan(owner, people=4)
    company.preflight(owner, plan)
    company.launch(owner, plan)
    for index, address in enumerate(plan.people):
        letter = company.opened(eventually(partial(house.mails_to, address))[0])
        assert letter.message["Subject"] == f"Ana{index}, your box"
        assert f"Dear Ana{index} of Batumi" in letter.html
        assert letter.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    eventually(lambda: "Sent 4" in owner.get(f"{plan.email}/progress").text)
    assert [len(house.mails_to(address)) for address in plan.people] == [1, 1, 1, 1]


def test_a_launch_needs_its_preflight_and_happens_once(house: RunningHouse, owner: Visitor) -> None:
    plan = company.plan(owner, people=1)
    button = owner.get(plan.email).form("/launch")
    assert "Run the preflight first" in owner.submit(button).text
    company.preflight(owner, plan)
    owner.submit(button)
    assert "launched already" in owner.submit(button).text.lower() or "already" in owner.submit(button).text
    eventually(partial(house.mails_to, plan.people[0]))
    eventually(lambda: "Sent 1" in owner.get(f"{plan.email}/progress").text)
    assert len(house.mails_to(plan.people[0])) == 1


def test_whoever_unsubscribed_is_left_out_of_the_next_mailing(house: RunningHouse, owner: Visitor) -> None:
    plan = company.plan(owner, people=2)
    company.preflight(owner, plan)
    company.launch(owner, plan)
    letter = company.opened(eventually(partial(house.mails_to, plan.people[0]))[0])
    provider = Visitor(house.base)
    one_click = letter.message["List-Unsubscribe"].strip("<>")
    assert provider.get(one_click).status == 200  # Looking changes nothing.
    assert provider.post(one_click, {"List-Unsubscribe": "One-Click"}, follow=False).status == 200
    assert plan.people[0] in owner.get("/suppressions").text
    again = company.mailing(owner, plan, "A second letter")
    assert "Suppressed: Unsubscribed 1" in company.preflight(owner, again).text
    company.launch(owner, again)
    eventually(lambda: len(house.mails_to(plan.people[1])) == 2)
    eventually(lambda: "Skipped 1" in owner.get(f"{again.email}/progress").text)
    assert len(house.mails_to(plan.people[0])) == 1


def test_a_test_mail_goes_to_oneself_and_counts_nowhere(house: RunningHouse, owner: Visitor) -> None:
    plan = company.plan(owner, people=1)
    before = len(house.mails_to(company.OWNER))
    owner.submit(owner.get(plan.message).form("/test-mail"))
    mail = eventually(lambda: house.mails_to(company.OWNER)[before:])[0]
    assert "your box" in mail.subject
    assert f"/catcher/{mail.id}" in owner.get("/catcher").html
