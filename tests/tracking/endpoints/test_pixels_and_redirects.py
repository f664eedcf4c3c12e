"""Open pixels, link redirects, short links and view pixels: answers to valid and invalid requests."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import Engine

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.accounts.models import Organisation
from campaigns.planning import links as planned
from campaigns.planning.models import Activity, Channel, ShortLink
from campaigns.tokens import Purpose, keyring, mint_send_token
from tests.conftest import FrozenClock
from tests.factories import make_activity, make_form, make_organisation
from tests.tracking.fixtures import Answer, call_wsgi, events, make_mailing, wsgi_environ, wsgi_request
from tracking.collector import collector
from tracking.endpoints import link_targets
from tracking.endpoints.pixels_and_redirects import GIF
from tracking.metrics import performance
from tracking.models.events import HitKind
from tracking.spool.writer import spool_writer

PIXEL = {
    "Content-Type": "image/gif",
    "Cache-Control": "no-cache, no-store, must-revalidate, max-age=0, private",
}


def is_pixel(answer: Answer) -> bool:
    return answer.status == 200 and answer.body == GIF and PIXEL.items() <= answer.headers.items()


def test_a_pixel_is_a_transparent_gif_and_not_cacheable(database: Engine) -> None:
    mailing = make_mailing()
    assert is_pixel(mailing.open())
    assert len(GIF) == 42
    head = mailing.open(method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "42")


def test_a_link_redirects_and_is_not_cacheable(database: Engine) -> None:
    answer = make_mailing().click(2)
    assert answer.status == 302
    assert answer.body == b""
    assert answer.headers == {
        "Location": "https://example.org/two",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex",
    }


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t.swapcase(),
        lambda t: "é" + t,
        lambda t: mint_send_token(Purpose.UNSUBSCRIBE, 1 << 32 | 1),
        lambda t: "A" * 5000,
        lambda t: t + "/../x",
    ],
)
def test_a_bad_token_gets_the_pixel_but_no_redirect(database: Engine, spoil: Any) -> None:
    mailing = make_mailing()
    bad = spoil(mailing.token())
    assert is_pixel(wsgi_request(f"/o/{bad}"))
    answer = wsgi_request(f"/c/{bad}/1")
    assert answer.status == 404
    assert "Location" not in answer.headers
    assert collector.collect_once() == 0


@pytest.mark.parametrize("number", ["0", "5", "01", "+1", "１", "1/", "1/2", "", "99999999", "-1", "1 "])
def test_a_link_that_is_not_in_the_mail_is_not_found(database: Engine, number: str) -> None:
    assert wsgi_request(f"/c/{make_mailing().token()}/{number}").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW", ""])
def test_other_methods_are_refused(database: Engine, method: str) -> None:
    mailing = make_mailing()
    for answer in (mailing.open(method=method), mailing.click(method=method), wsgi_request("/v/x", method)):
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_other_paths_are_passed_to_flask() -> None:
    assert [wsgi_request(path).status for path in ("/", "/campaigns", "/o", "/c", "/offers", "/f/x")] == [418] * 6


@examples(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from(["/o/", "/c/", "/v/", "/l/"]),
    rest=st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{28}(/[0-9]{1,6})?", fullmatch=True),
    junk=st.text(max_size=40),
    method=st.sampled_from(["GET", "HEAD", "POST", "X"]),
)
def test_random_requests_never_redirect_or_fail(
    sqlite_engine: Engine, prefix: str, rest: str, junk: str, method: str
) -> None:
    db.set_engine(sqlite_engine)
    answer = call_wsgi(
        wsgi_environ(prefix + rest, method, junk, junk, user_agent=junk, x_forwarded_for=junk, purpose=junk)
    )
    assert answer.status in (200, 404, 405)
    assert "Location" not in answer.headers


def test_own_hosts_get_a_visit_token(database: Engine, frozen: FrozenClock) -> None:
    mailing = make_mailing(
        urls=[
            "http://localhost/f/sample#form",
            "http://localhost/f/sample?a=1&k=old&b=%20x",
            "https://elsewhere.org/?k=1",
        ]
    )
    first, second, third = (urlsplit(mailing.click(number).headers["Location"]) for number in (1, 2, 3))
    assert (first.path, first.fragment) == ("/f/sample", "form")
    assert second.query.startswith("a=1&b=%20x&k=")
    assert third.query == "k=1"
    (token,) = parse_qs(second.query)["k"]
    assert keyring().open_expiring(Purpose.VISIT, token) == mailing.sends[0].to_bytes(8)
    nobody = wsgi_request(f"/c/{mailing.anonymous_token}/1").headers["Location"]
    assert nobody == "http://localhost/f/sample#form"
    with db.transaction() as session:
        session.get_one(Organisation, 1).own_hosts = ["elsewhere.org"]
    link_targets.sync()
    assert mailing.click(3).headers["Location"] == f"https://elsewhere.org/?k={token}", "it became ours"
    frozen.at += timedelta(minutes=31)
    with pytest.raises(Exception, match="expired"):
        keyring().open_expiring(Purpose.VISIT, token)


def test_a_personalised_target_is_merged_when_clicked(database: Engine) -> None:
    mailing = make_mailing(urls=["https://example.org/{{ contact.first_name }}?x={{ contact.email }}"])
    location = mailing.click().headers["Location"]
    assert location.startswith("https://example.org/First")
    assert "%40example.net" in location
    assert mailing.click().status == 302


def test_pixels_and_cached_links_work_without_the_database(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing(urls=["https://example.org/{{ contact.first_name }}", "https://example.org/two"])
    unknown = make_mailing()
    with db.transaction() as session:
        slug = make_form(session).slug
    link_targets.sync()
    (settings.var / "links" / f"{unknown.activity_id}.json").unlink()
    restart_without_database(settings)
    assert is_pixel(mailing.open())
    assert is_pixel(wsgi_request(f"/v/{slug}"))
    assert mailing.click(2).headers["Location"] == "https://example.org/two"
    assert mailing.click(1).headers["Location"] == "https://example.org/"
    away = unknown.click(1)
    assert (away.status, away.headers["Retry-After"]) == (503, "30")
    db.set_engine(database)
    assert collector.collect_once() == 4


def restart_without_database(settings: config.Settings) -> None:
    """Replace the process state by that of a new process with the same ``var/`` and no database."""
    config.set_settings(config.Settings(**{name: getattr(settings, name) for name in settings.__slots__}))
    db.set_engine(db.make_engine("sqlite:////nowhere/at/all.db"))


def test_a_broken_spool_does_not_stop_answers(database: Engine, settings: config.Settings, tmp_path: Path) -> None:
    mailing = make_mailing()
    settings.spool.parent.mkdir(exist_ok=True)
    settings.spool.write_text("a file where the directory should be")
    assert is_pixel(mailing.open())
    assert mailing.click().status == 302
    assert spool_writer().lost_hits == 2


def test_only_the_network_is_stored_and_only_proxies_are_trusted(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing()
    mailing.open(ip="198.51.100.77", x_forwarded_for="203.0.113.1")
    mailing.open(ip="2001:db8:1:2:3:4:5:6")
    mailing.open(ip="", x_forwarded_for="junk")
    collector.collect_once()
    assert [event.network for event in events()] == [0xC63364, (1 << 48) | 0x20010DB80001, 0]
    for path in settings.spool.glob("*.spool"):
        assert (198 << 24 | 51 << 16 | 100 << 8 | 77).to_bytes(4, "little") not in path.read_bytes()


def test_a_view_has_the_activity_of_the_page_and_the_visiting_send(database: Engine) -> None:
    mailing = make_mailing()
    with db.transaction() as session:
        form = make_form(session)
    k = urlsplit(make_link_token(mailing.sends[0])).query
    assert is_pixel(wsgi_request(f"/v/{form.slug}", query=k))
    assert is_pixel(wsgi_request(f"/v/{form.slug}", query="k=junk"))
    assert is_pixel(wsgi_request("/v/no-such-page"))
    collector.collect_once()
    assert [(e.kind, e.activity_id, e.send_id) for e in events()] == [
        (HitKind.VIEW, form.activity_id, mailing.sends[0]),
        (HitKind.VIEW, form.activity_id, None),
    ]


def make_link_token(send_id: int) -> str:
    from tracking.endpoints.pixels_and_redirects import _mint_visit_token

    return f"http://localhost/f/x?k={_mint_visit_token(send_id)}"


def make_short_link(url: str = "https://example.org/tea?a=1") -> ShortLink:
    with db.transaction() as session:
        make_organisation(session)
        activity = make_activity(session, channel=Channel.SOCIAL, everybody=False)
        return planned.create_link(session, SYSTEM, activity, label="Bio", url=url)


def test_a_short_link_redirects_and_counts_for_its_activity(database: Engine) -> None:
    link = make_short_link()
    for code in (link.code, link.code.upper()):
        answer = wsgi_request(f"/l/{code}")
        assert answer.status == 302
        assert answer.headers["Location"].startswith("https://example.org/tea?a=1&utm_source=social&utm_medium=social")
        assert answer.headers["Cache-Control"] == "no-store"
    assert wsgi_request(f"/l/{link.code}x").status == 404
    assert wsgi_request("/l/").status == 404
    collector.collect_once()
    assert [(e.kind, e.activity_id, e.send_id, e.link) for e in events()] == [
        (HitKind.CLICK, link.activity_id, None, 1)
    ] * 2
    with db.read_only_session() as session:
        (line,) = performance.link_clicks(session, SYSTEM, link.activity_id)
        campaign_id = session.get_one(Activity, link.activity_id).campaign_id
        found = performance.campaign_performance(session, SYSTEM, campaign_id)
    assert line.counts.clicks is not None
    assert line.counts.clicks.total == 2
    assert found.counts.mails is None, "nobody's mails are clicked by this"
    assert found.counts.clicks == line.counts.clicks


def test_a_switched_off_short_link_is_gone(database: Engine, settings: config.Settings) -> None:
    link = make_short_link()
    assert wsgi_request(f"/l/{link.code}").status == 302
    with db.transaction() as session:
        planned.set_link_active(session, SYSTEM, session.get_one(ShortLink, link.id), active=False)
    link_targets.sync()
    answer = wsgi_request(f"/l/{link.code}")
    assert answer.status == 410
    assert "Location" not in answer.headers
    assert b"switched it off" in answer.body
    with db.transaction() as session:
        planned.set_link_active(session, SYSTEM, session.get_one(ShortLink, link.id), active=True)
    link_targets.sync()
    restart_without_database(settings)
    assert wsgi_request(f"/l/{link.code}").status == 302
    assert wsgi_request("/l/unknown2").status == 404


def test_a_sent_link_can_be_changed_or_switched_off(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing()
    assert mailing.click(2).headers["Location"] == "https://example.org/two"

    def change(url: str | None) -> None:
        with db.transaction() as session:
            activity = session.get_one(Activity, mailing.activity_id)
            planned.override_mail_link(session, SYSTEM, activity, 2, url)
        link_targets.sync()

    change("https://example.org/mended")
    assert mailing.click(2).headers["Location"] == "https://example.org/mended"
    change(planned.SWITCHED_OFF)
    assert mailing.click(2).status == 410
    assert mailing.click(1).status == 302
    restart_without_database(settings)
    assert mailing.click(2).status == 410, "a restart without the database remembers it"
    db.set_engine(database)
    change(None)
    assert mailing.click(2).headers["Location"] == "https://example.org/two"
    assert link_targets.SYNC_SECONDS <= 10


def test_invalid_requests_cost_no_queries(
    database: Engine, count_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_targets, "_REFRESH_SECONDS", 60.0)
    mailing = make_mailing()
    wsgi_request("/l/first2look")
    nobody = mint_send_token(Purpose.ENGAGEMENT, 77 << 32 | 5)
    assert wsgi_request(f"/c/{nobody}/1").status == 404
    with count_queries(database) as asked_for:
        for number in range(300):
            assert wsgi_request(f"/l/{number:08}").status == 404
            wsgi_request(f"/v/{number}")
            wsgi_request(f"/c/{mailing.token()[:-4]}{number:04}/1")
            assert wsgi_request(f"/c/{nobody}/{number + 1}").status == 404
    assert asked_for == []


def test_an_uncached_link_without_the_database_is_503(database: Engine, settings: config.Settings) -> None:
    link = make_short_link()
    restart_without_database(settings)
    answer = wsgi_request(f"/l/{link.code}")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "30")


def test_old_keys_verify_for_as_long_as_they_are_kept(database: Engine, settings: config.Settings) -> None:
    mailing = make_mailing()
    old = mailing.token()
    first = settings.secret_keys[0]
    config.set_settings(dataclasses.replace(settings, secret_keys=(first, (2, b"n" * 32))))
    assert mailing.token() != old
    assert wsgi_request(f"/c/{old}/1").status == mailing.click(1).status == 302
    new = mailing.token()
    config.set_settings(dataclasses.replace(settings, secret_keys=((2, b"n" * 32),)))
    assert wsgi_request(f"/c/{new}/1").status == 302
    assert wsgi_request(f"/c/{old}/1").status == 404
