"""End-to-end tests of sending: from the launch button to the mailbox, with every recipient accounted for."""

from functools import partial

from tests.e2e import steps
from tests.e2e.installation import RunningHouse
from tests.e2e.visitor import Visitor, eventually


def test_from_a_spreadsheet_to_the_inbox(house: RunningHouse, owner: Visitor) -> None:
    plan = steps.plan(owner, people=4)
    steps.preflight(owner, plan)
    steps.launch(owner, plan)
    for index, address in enumerate(plan.people):
        letter = steps.opened(eventually(partial(house.mails_to, address))[0])
        assert letter.message["Subject"] == f"Ana{index}, your box"
        assert f"Dear Ana{index} of Batumi" in letter.html
        assert letter.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    eventually(lambda: "Sent 4" in owner.get(f"{plan.email}/progress").text)
    assert [len(house.mails_to(address)) for address in plan.people] == [1, 1, 1, 1]


def test_a_launch_needs_its_preflight_and_happens_once(house: RunningHouse, owner: Visitor) -> None:
    plan = steps.plan(owner, people=1)
    button = owner.get(plan.email).form("/launch")
    assert "Run the preflight first" in owner.submit(button).text
    steps.preflight(owner, plan)
    owner.submit(button)
    assert "launched already" in owner.submit(button).text.lower() or "already" in owner.submit(button).text
    eventually(partial(house.mails_to, plan.people[0]))
    eventually(lambda: "Sent 1" in owner.get(f"{plan.email}/progress").text)
    assert len(house.mails_to(plan.people[0])) == 1


def test_whoever_unsubscribed_is_left_out_of_the_next_mailing(house: RunningHouse, owner: Visitor) -> None:
    plan = steps.plan(owner, people=2)
    steps.preflight(owner, plan)
    steps.launch(owner, plan)
    letter = steps.opened(eventually(partial(house.mails_to, plan.people[0]))[0])
    provider = Visitor(house.base)
    one_click = letter.message["List-Unsubscribe"].strip("<>")
    assert provider.get(one_click).status == 200  # A GET changes nothing.
    assert provider.post(one_click, {"List-Unsubscribe": "One-Click"}, follow=False).status == 200
    assert plan.people[0] in owner.get("/suppressions").text
    again = steps.mailing(owner, plan, "A second letter")
    assert "Suppressed: Unsubscribed 1" in steps.preflight(owner, again).text
    steps.launch(owner, again)
    eventually(lambda: len(house.mails_to(plan.people[1])) == 2)
    eventually(lambda: "Skipped 1" in owner.get(f"{again.email}/progress").text)
    assert len(house.mails_to(plan.people[0])) == 1


def test_a_test_mail_goes_to_oneself_and_counts_nowhere(house: RunningHouse, owner: Visitor) -> None:
    plan = steps.plan(owner, people=1)
    before = len(house.mails_to(steps.OWNER))
    owner.submit(owner.get(plan.message).form("/test-mail"))
    mail = eventually(lambda: house.mails_to(steps.OWNER)[before:])[0]
    assert "your box" in mail.subject
    assert f"/catcher/{mail.id}" in owner.get("/catcher").html
