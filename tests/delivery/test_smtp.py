"""What answers mean, and how the relay is reached."""

import dataclasses

import pytest

from campaigns import config
from campaigns.delivery.compose import Mail
from campaigns.delivery.smtp import Connection, Fate, RelayDown, classify, relay_address
from campaigns.demo.catcher import Box, Faults

ANSWERS = [
    (550, "5.1.1 no such user", Fate.DEAD),
    (550, "5.1.2 bad domain", Fate.DEAD),
    (550, "5.1.10 null mx", Fate.DEAD),
    (550, "No such user here", Fate.DEAD),
    (550, "5.7.1 spam, user unknown to us", Fate.OURS),
    (554, "5.7.26 unauthenticated", Fate.OURS),
    (530, "authentication required", Fate.OURS),
    (552, "5.2.2 mailbox full", Fate.REFUSED),
    (550, "5.2.1 disabled", Fate.REFUSED),
    (554, "transaction failed", Fate.REFUSED),
    (451, "4.7.1 greylisted", Fate.LATER),
    (421, "4.3.2 shutting down", Fate.LATER),
]


@pytest.mark.parametrize(("code", "text", "fate"), ANSWERS)
def test_classification(code: int, text: str, fate: Fate) -> None:
    assert classify(code, text) is fate


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://127.0.0.1:2525", ("127.0.0.1", 2525, False, False)),
        ("smtp://localhost", ("localhost", 25, False, False)),
        ("smtp://relay.example", ("relay.example", 25, False, True)),
        ("smtp://relay.example?tls=off", ("relay.example", 25, False, False)),
        ("smtps://u%40x:p%3A@relay.example", ("relay.example", 465, True, False)),
    ],
)
def test_addresses(settings: config.Settings, url: str, expected: tuple[str, int, bool, bool]) -> None:
    config.install(dataclasses.replace(settings, smtp_url=url))
    relay = relay_address()
    assert (relay.host, relay.port, relay.implicit_tls, relay.tls) == expected
    if "u%40x" in url:
        assert (relay.user, relay.password) == ("u@x", "p:")


def mail(recipient: str, content: bytes = b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n") -> Mail:
    return Mail("b+x@example.org", recipient, content, not recipient.isascii())


def test_dots_arrive_and_marks_are_set_late(catcher: int, faults: Faults) -> None:
    faults["no@example.net"] = ["550 5.1.1 no"]
    faults["gone@example.net"] = ["drop before"]
    marked: list[str] = []
    connection = Connection(relay_address())
    assert connection.send(mail("no@example.net"), lambda: marked.append("no")).fate is Fate.DEAD
    assert connection.send(mail("yes@example.net"), lambda: marked.append("yes")).fate is Fate.SENT
    assert connection.send(mail("é@example.net"), lambda: marked.append("é")).fate is Fate.SENT
    assert connection.send(mail("gone@example.net"), lambda: marked.append("gone")).fate is Fate.LOST
    assert marked == ["yes", "é"]
    kept = Box().mail(1)
    assert kept is not None
    assert kept.raw.endswith(b".dot\r\n..\r\nend\r\n")


def test_nothing_listens(settings: config.Settings) -> None:
    with pytest.raises(RelayDown, match="refused"):
        Connection(relay_address())
