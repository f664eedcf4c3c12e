"""The catalogs: complete, compiled from their source, with all placeholders."""

import re
from functools import cache

import pytest

from campaigns.web.i18n import catalogs

_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]")
_extract_once = cache(catalogs.extract_messages)


@pytest.fixture(autouse=True)
def _cached_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extract the messages once for all tests, since it reads every file."""
    monkeypatch.setattr(catalogs, "extract_messages", _extract_once)


def test_every_message_is_translated() -> None:
    assert list(catalogs.untranslated("fa")) == []


def test_the_compiled_catalog_matches_its_source() -> None:
    assert catalogs.po_path("fa").with_suffix(".mo").read_bytes() == catalogs.compile_catalog("fa")


def test_translations_keep_their_placeholders() -> None:
    for message in catalogs.load_catalog("fa"):
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        texts = [message.string] if isinstance(message.string, str) else list(message.string or ())
        if not all(ids) or not all(texts):
            continue
        expected = set(_PLACEHOLDER.findall(ids[-1]))
        assert all(set(_PLACEHOLDER.findall(text)) <= expected for text in texts), message.id
        assert set(_PLACEHOLDER.findall(texts[-1])) == expected, message.id


def test_every_kind_of_message_is_extracted() -> None:
    found = {message.id for message in catalogs.extract_messages()}
    assert {"Sign in", "Owner", "This link has expired.", "Skip to content", "Present password"} <= found
