"""Tests of the mail catcher's pages."""

import dataclasses
import smtplib

import pytest
from flask import Flask
from flask.testing import FlaskClient

from campaigns import config
from campaigns.mail_catcher.store import running_catcher

MAIL = (
    "From: a@example.org\r\nTo: b@example.net\r\nSubject: =?utf-8?B?U2Fsw7x0?=\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/alternative; boundary="x"\r\n\r\n'
    "--x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nPlain http://localhost/c/t/1 <b>\r\n"
    "--x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    "<html><head><title>t</title></head><body><a href='http://localhost/c/t/1'>Go</a><script>1</script></body></html>\r\n"
    "--x--\r\n"
)


def send_mails(*recipients: str, content: str = MAIL) -> None:
    with running_catcher() as port, smtplib.SMTP("127.0.0.1", port) as client:
        for recipient in recipients:
            client.sendmail("a@example.org", [recipient], content)


@pytest.fixture(autouse=True)
def enable_catcher(settings: config.Settings, app: Flask) -> None:
    config.set_settings(dataclasses.replace(settings, catcher=True))


def test_list_is_searched_and_paged(coordinator_client: FlaskClient) -> None:
    assert "No mail" in coordinator_client.get("/catcher").text
    send_mails(*(f"p{n}@example.net" for n in range(60)))
    first = coordinator_client.get("/catcher").text
    assert first.count("@example.net") == 50
    assert "/catcher?before=11" in first
    second = coordinator_client.get("/catcher?before=11").text
    assert second.count("@example.net") == 10
    assert "/catcher?after=10" in second
    assert coordinator_client.get("/catcher?after=10").text.count("@example.net") == 50
    assert "before=1" in coordinator_client.get("/catcher?after=10").text
    assert coordinator_client.get("/catcher?address=p59@").text.count("p59@example.net") == 1


def test_mail_page_and_html_frame(coordinator_client: FlaskClient) -> None:
    send_mails("b@example.net")
    shown = coordinator_client.get("/catcher/1")
    assert "Salüt" in shown.text
    assert "sandbox=" in shown.text
    assert "&lt;b&gt;" in shown.text
    frame = coordinator_client.get("/catcher/1/html")
    policy = frame.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http://localhost" in policy
    assert "allow-scripts" not in policy
    assert '<head><base target="_blank">' in frame.text
    assert coordinator_client.get("/catcher/99").status_code == 404
    assert coordinator_client.get("/catcher/99/html").status_code == 404


@pytest.mark.parametrize(
    "content", ["", "\r\n", "Subject: only\r\n\r\nhello", "Content-Type: text/plain; charset=nope\r\n\r\nx"]
)
def test_malformed_mails_are_shown(coordinator_client: FlaskClient, content: str) -> None:
    send_mails("b@example.net", content=content)
    assert coordinator_client.get("/catcher/1").status_code == 200
    assert coordinator_client.get("/catcher/1/html").status_code == 200


def test_anonymous_users_and_viewers_are_refused(client: FlaskClient, viewer_client: FlaskClient) -> None:
    assert client.get("/catcher").status_code in (302, 303)
    assert viewer_client.get("/catcher").status_code == 403


def test_not_found_with_a_real_relay(coordinator_client: FlaskClient, settings: config.Settings) -> None:
    config.set_settings(settings)
    assert coordinator_client.get("/catcher").status_code == 404
