"""The catalogs: complete, compiled from their source, with all placeholders."""

import re
from functools import cache

import pytest

from campaigns.web.i18n import catalogs

_PLACES = re.compile(r"%\(\w+\)[sd]")
_extracted = cache(catalogs.extracted)


@pytest.fixture(autouse=True)
def _read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extract the messages once for all tests, since it reads every file."""
    monkeypatch.setattr(catalogs, "extracted", _extracted)


def test_every_sentence_is_translated() -> None:
    assert list(catalogs.untranslated("fa")) == []


def test_the_compiled_catalogue_is_that_of_its_source() -> None:
    assert catalogs.path_of("fa").with_suffix(".mo").read_bytes() == catalogs.compile_one("fa")


def test_translations_keep_their_places() -> None:
    for message in catalogs.catalogue("fa"):
        ids = [message.id] if isinstance(message.id, str) else list(message.id)
        texts = [message.string] if isinstance(message.string, str) else list(message.string or ())
        if not all(ids) or not all(texts):
            continue
        wanted = set(_PLACES.findall(ids[-1]))
        assert all(set(_PLACES.findall(text)) <= wanted for text in texts), message.id
        assert set(_PLACES.findall(texts[-1])) == wanted, message.id


def test_ours_are_found() -> None:
    found = {message.id for message in catalogs.extracted()}
    assert {"Sign in", "Owner", "This link has expired.", "Skip to content", "Present password"} <= found
