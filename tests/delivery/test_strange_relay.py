"""A relay that answers what no relay should."""

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine

from campaigns import config
from campaigns.delivery.compose import Mail
from campaigns.delivery.deliver import deliver
from campaigns.delivery.smtp import Connection, Fate, relay_address
from tests.delivery.mailing import sends, states
from tests.delivery.test_deliver import launched


@contextmanager
def answering(
    settings: config.Settings, rcpt: bytes = b"250 ok", data: bytes = b"354 go", dot: bytes = b"250 ok"
) -> Iterator[None]:
    """A relay with these answers, one connection after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb", buffering=0) as lines:
                lines.write(b"220 strange\r\n")
                for line in lines:
                    word = line[:4].upper()
                    if word == b"QUIT":
                        break
                    if word == b"DATA":
                        lines.write(data + b"\r\n")
                        if not data.startswith(b"354"):
                            continue
                        while (line := lines.readline()) != b".\r\n":
                            if not line:
                                break
                        else:
                            lines.write(dot + b"\r\n")
                    else:
                        lines.write((rcpt if word == b"RCPT" else b"250 fine") + b"\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    config.install(dataclasses.replace(settings, smtp_url=f"smtp://127.0.0.1:{listener.getsockname()[1]}"))
    try:
        yield
    finally:
        listener.close()


MAIL = Mail("b+x@example.org", "somebody@example.net", b"Subject: x\r\n\r\nbody\r\n", False)


@pytest.mark.parametrize("dot", [b"what?", b"354 more", b"999 huh", b"100 wait"])
def test_no_answer_to_the_dot_that_says_anything(settings: config.Settings, dot: bytes) -> None:
    """Nobody knows whether the mail was taken, so it is never sent again by itself."""
    with answering(settings, dot=dot):
        assert Connection(relay_address()).send(MAIL, lambda: None).fate is Fate.UNKNOWN


@pytest.mark.parametrize("answers", [{"rcpt": b"what?"}, {"rcpt": b"354 go"}, {"data": b"250 ok"}, {"data": b"xyz"}])
def test_nonsense_before_the_dot_ends_the_connection(settings: config.Settings, answers: dict[str, bytes]) -> None:
    marked: list[int] = []
    with answering(settings, **answers):
        assert Connection(relay_address()).send(MAIL, lambda: marked.append(1)).fate is Fate.LOST
    assert marked == []


@pytest.mark.parametrize("word", [b"taken \x00 as \x1b[31m 7", b"\xff\xfe"], ids=["control", "latin"])
def test_an_answer_with_strange_bytes_is_kept(database: Engine, settings: config.Settings, word: bytes) -> None:
    activity_id = launched(2)
    with answering(settings, dot=b"250 " + word):
        deliver(activity_id)
    assert states(activity_id) == {"sent": 2}
    assert sends(activity_id)[0].reply.isprintable()


def test_a_refusal_with_strange_bytes_is_a_refusal(database: Engine, settings: config.Settings) -> None:
    activity_id = launched(2)
    with answering(settings, rcpt=b"550 5.1.1 \x00 no such user"):
        deliver(activity_id)
    assert states(activity_id) == {"bounced": 2}
