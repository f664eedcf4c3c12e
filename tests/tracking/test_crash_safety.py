"""kill -9 of writers, collector and final labelling at random instants: no answered hit is lost or counted twice.

One seed by default; ``TORTURE=50`` runs fifty.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy import Engine, make_url

from campaigns import config, db
from tests.tracking.collector.test_collector import check_counts
from tests.tracking.fixtures import Mailing, call_wsgi, events, make_mailing, wsgi_environ
from tracking.bots import final_labels
from tracking.collector import collector
from tracking.models.events import TrafficLabel

SEEDS = range(int(os.environ.get("TORTURE", "1")))
THREADS = 3
RECIPIENTS = 30


def fork_process(engine: Engine, work: Callable[[], None]) -> int:
    """Fork a process that runs ``work`` until it is killed. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            engine.dispose(close=False)
            db.set_engine(db.make_engine(make_url(engine.url).render_as_string(hide_password=False)))
            work()
        finally:
            os._exit(0)
    return pid


def kill_process(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def write_hits(mailing: Mailing, first: int, acknowledge: int, seed: int) -> None:
    """Answer hits in threads, each hit with its own network, and write the number of each to a pipe once it is
    answered.
    """
    tokens = [mailing.token(index) for index in range(RECIPIENTS)]

    def answer(numbers: range) -> None:
        chance = random.Random(f"{seed}-{numbers.start}")
        for number in numbers:
            token, ip = chance.choice(tokens), f"{number >> 16}.{number >> 8 & 255}.{number & 255}.7"
            path = chance.choice([f"/o/{token}", f"/c/{token}/{chance.randint(1, 4)}"])
            assert call_wsgi(wsgi_environ(path, ip=ip)).status in (200, 302)
            os.write(acknowledge, number.to_bytes(4))
            if chance.random() < 0.1:
                time.sleep(0.001)

    threads = [
        threading.Thread(target=answer, args=(range(first + n * 2_000, first + n * 2_000 + 2_000),))
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def collect_forever() -> None:
    collector.PAUSE_SECONDS = 0.005
    collector.run(threading.Event())


def label_forever() -> None:
    while True:
        with suppress(Exception):
            final_labels.settle_due(limit=50)
        time.sleep(0.005)


def kill_repeatedly(engine: Engine, work: Callable[[], None], chance: random.Random, stop: threading.Event) -> None:
    while not stop.is_set():
        pid = fork_process(engine, work)
        time.sleep(chance.uniform(0.02, 0.35))
        kill_process(pid)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_answered_hit_is_logged_exactly_once(database: Engine, settings: config.Settings, seed: int) -> None:
    hasty = {name: getattr(settings, name) for name in settings.__slots__} | {"time_scale": 10_000.0}
    config.set_settings(config.Settings(**hasty))
    mailing, chance, stop = make_mailing(RECIPIENTS), random.Random(seed), threading.Event()
    mailing.click(1)  # So that forked writers know the links without a query.
    collector.collect_once()
    victims = [
        threading.Thread(target=kill_repeatedly, args=(database, work, random.Random(f"{seed}-{number}"), stop))
        for number, work in enumerate((collect_forever, label_forever))
    ]
    for victim in victims:
        victim.start()
    answered: set[int] = set()
    lives = 4
    for life in range(lives):
        reading, writing = os.pipe()
        first = (1 << 16) + life * 10_000
        pid = fork_process(database, lambda first=first, writing=writing: write_hits(mailing, first, writing, seed))  # type: ignore[misc]
        os.close(writing)
        died = threading.Timer(chance.uniform(0.1, 0.5), kill_process, [pid])
        died.start()
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        died.join()
        answered |= {int.from_bytes(data[at : at + 4]) for at in range(0, len(data) - 3, 4)}
    stop.set()
    for victim in victims:
        victim.join()
    while collector.collect_once():
        pass
    logged = Counter(event.network for event in events() if event.network >> 16)
    in_log = {number for number in logged if number >= 1 << 16} - {0xCB0071}
    assert answered <= in_log
    assert len(in_log - answered) <= lives * THREADS, "only hits in flight may be there unanswered"
    assert set(logged.values()) == {1}
    check_counts()
    time.sleep(0.2)
    while final_labels.settle_due():
        pass
    assert TrafficLabel.SETTLING not in {TrafficLabel(event.label) for event in events()}
    check_counts()
