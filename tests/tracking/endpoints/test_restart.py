"""kill -9 of the web server while the database is down: after a restart, pixels answer and known links redirect."""

import base64
from pathlib import Path

from campaigns import config, db
from campaigns.accounts.actor import SYSTEM
from campaigns.migrations import schema
from campaigns.planning import links
from campaigns.planning.models import Channel
from tests.conftest import SECRET
from tests.e2e.installation import free_port
from tests.factories import make_activity
from tests.tracking.fixtures import make_mailing
from tests.tracking.web_server import kill_server, raw_request, web_server
from tracking.spool import reader


def status_and_location(port: int, path: str) -> tuple[int, str]:
    status, head = raw_request(port, f"GET {path} HTTP/1.0\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n".encode())
    found = [line[10:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"location: ")]
    return status, found[0] if found else ""


def test_links_survive_a_restart_without_the_database(settings: config.Settings, tmp_path: Path) -> None:
    engine = db.make_engine(f"sqlite:///{tmp_path / 'kampania.db'}")
    schema.upgrade(engine)
    db.set_engine(engine)
    mailing = make_mailing(urls=["https://example.org/{{ contact.first_name }}", "https://example.org/two"])
    with db.transaction() as session:
        activity = make_activity(session, channel=Channel.EVENT, everybody=False)
        short = links.create_link(session, SYSTEM, activity, label="Poster", url="https://example.org/poster")
    engine.dispose()
    asked = [f"/c/{mailing.token()}/2", f"/c/{mailing.token()}/1", f"/l/{short.code}"]
    secret, port = f"1:{base64.b64encode(SECRET).decode()}", free_port()
    with web_server(tmp_path, port, SECRET_KEYS=secret) as server:
        before = [status_and_location(port, path) for path in asked]
        assert [status for status, _ in before] == [302, 302, 302]
        kill_server(server)
    for path in tmp_path.glob("kampania.db*"):
        path.unlink()
    (tmp_path / "kampania.db").mkdir()  # A directory in its place: no database can be opened.
    port = free_port()
    with web_server(tmp_path, port, SECRET_KEYS=secret):
        assert status_and_location(port, asked[0]) == before[0]
        assert status_and_location(port, asked[1]) == (302, "https://example.org/")
        assert status_and_location(port, asked[2]) == before[2]
        assert status_and_location(port, f"/o/{mailing.token()}")[0] == 200
        assert status_and_location(port, "/l/unknown9")[0] == 404
        for method in ("GET", "HEAD"):  # The server adds Content-Length.
            for address, length in ((f"/o/{mailing.token()}", b"42"), (asked[0], b"0")):
                asking = f"{method} {address} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                head = raw_request(port, asking.encode())[1]
                assert b"\r\ncontent-length: " + length in head.lower()
    kept = [
        hit
        for of_spool in reader.list_spools(tmp_path / "spool").values()
        for _, hit in reader.read_chunk(of_spool, 0).hits
    ]
    assert len(kept) == 11, "each of them survives the kill"
    assert {hit.network for hit in kept} == {127 << 16}, "nobody is trusted to say who asks"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").glob("*.spool")} == {0o600}
