"""Tests of the demo's simulated visitors: realistic requests, identical in every run with one seed."""

import pytest

from campaigns.demo import simulated_visitors
from campaigns.demo.http_client import HttpPage
from campaigns.demo.simulated_audience import SimulatedAudience
from campaigns.planning.models import Channel

PAGE = '<img src="/v/box?x=1"><form method="post" action="/f/box"><input name="email"><input name="first_name"></form>'
PAGES = {Channel.SOCIAL: "/f/social", Channel.EVENT: "/f/event"}
Call = tuple[str, str, dict[str, str], dict[str, str]]


def visited(monkeypatch: pytest.MonkeyPatch, seed: int) -> tuple[SimulatedAudience, list[Call]]:
    calls: list[Call] = []

    def fetch(
        self: SimulatedAudience, url: str, headers: dict[str, str], method: str = "GET", **more: dict[str, str]
    ) -> HttpPage:
        calls.append((method, url, headers, more.get("fields", {})))
        return HttpPage(f"http://localhost{url}", 200, PAGE)

    monkeypatch.setattr(SimulatedAudience, "fetch", fetch)
    audience = SimulatedAudience("http://localhost", "/f/web", hurry=1e6)
    simulated_visitors.invite(audience, PAGES, seed)
    audience.live(lambda: True)
    assert audience.problems == []
    return audience, sorted(calls, key=repr)


def test_visitors_look_and_some_fill_in(monkeypatch: pytest.MonkeyPatch) -> None:
    audience, calls = visited(monkeypatch, 1)
    looked = [headers for method, url, headers, _ in calls if url.startswith("/f/") and method == "GET"]
    assert len(looked) == audience.tally["visits"] == 60
    assert sum(url.startswith("http://localhost/v/") for _, url, _, _ in calls) == 60
    sent = [fields for method, _, _, fields in calls if method == "POST"]
    assert 5 < len(sent) < 30
    assert len({fields["email"] for fields in sent}) == len(sent)
    assert len({headers["X-Forwarded-For"].rpartition(".")[0] for headers in looked}) > 55
    assert all(headers["User-Agent"].startswith("Mozilla/5.0 (") for headers in looked)


def test_two_runs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert visited(monkeypatch, 3)[1] == visited(monkeypatch, 3)[1]
