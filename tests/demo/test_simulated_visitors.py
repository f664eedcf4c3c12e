"""Tests of the demo's simulated visitors: realistic requests, identical in every run with one seed."""

import pytest

from campaigns.demo import simulated_visitors
from campaigns.demo.http_client import HttpPage
from campaigns.demo.simulated_audience import SimulatedAudience
from campaigns.planning.models import Channel

PAGE = '<img src="/v/box?x=1"><form method="post" action="/f/box"><input name="email"><input name="first_name"></form>'
PAGES = {Channel.SOCIAL: "/f/social", Channel.EVENT: "/f/event"}
Call = tuple[str, str, dict[str, str], dict[str, str]]


def run_visits(monkeypatch: pytest.MonkeyPatch, seed: int) -> tuple[SimulatedAudience, list[Call]]:
    calls: list[Call] = []

    def fetch(
        self: SimulatedAudience, url: str, headers: dict[str, str], method: str = "GET", **more: dict[str, str]
    ) -> HttpPage:
        calls.append((method, url, headers, more.get("fields", {})))
        return HttpPage(f"http://localhost{url}", 200, PAGE)

    monkeypatch.setattr(SimulatedAudience, "fetch", fetch)
    audience = SimulatedAudience("http://localhost", "/f/web", speedup=1e6)
    simulated_visitors.schedule_visits(audience, PAGES, seed)
    audience.run(lambda: True)
    assert audience.problems == []
    return audience, sorted(calls, key=repr)


def test_visitors_view_and_some_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    audience, calls = run_visits(monkeypatch, 1)
    view_headers = [headers for method, url, headers, _ in calls if url.startswith("/f/") and method == "GET"]
    assert len(view_headers) == audience.counts["visits"] == 60
    assert sum(url.startswith("http://localhost/v/") for _, url, _, _ in calls) == 60
    submitted = [fields for method, _, _, fields in calls if method == "POST"]
    assert 5 < len(submitted) < 30
    assert len({fields["email"] for fields in submitted}) == len(submitted)
    assert len({headers["X-Forwarded-For"].rpartition(".")[0] for headers in view_headers}) > 55
    assert all(headers["User-Agent"].startswith("Mozilla/5.0 (") for headers in view_headers)


def test_two_runs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_visits(monkeypatch, 3)[1] == run_visits(monkeypatch, 3)[1]
