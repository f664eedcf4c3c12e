"""Translation catalogs: extract, update, compile. ``python -m campaigns.web.i18n.catalogs``.

Messages are marked with ``_`` and ``gettext`` (pages), ``ngettext`` (plurals), ``lazy_gettext`` (forms), and ``N_``
(domain code, which doesn't know the reader). English is the source language; every other language has a ``.po`` file.
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from campaigns.web.i18n.formatting import LANGUAGES, TRANSLATIONS

ROOT = Path(__file__).parents[3]
SOURCES = ("campaigns", "tracking", "workers", "templates")
KEYWORDS: dict[str, tuple[int, ...] | None] = {
    "_": None,
    "_l": None,
    "N_": None,
    "gettext": None,
    "lazy_gettext": None,
    "ngettext": (1, 2),
    "translated": None,
}
METHODS = [("**/migrations/**.py", "ignore"), ("**.py", "python"), ("**.html", "jinja2"), ("**.txt", "jinja2")]
# Without "silent" extraction fails on a template that it can't parse, so that no message is missed unnoticed.
OPTIONS = {"**.html": {"trimmed": "true", "silent": "false"}, "**.txt": {"trimmed": "true", "silent": "false"}}


def extract_messages() -> Catalog:
    """All marked messages of the product, in the order of the files."""
    catalog = Catalog(project="Kampania", charset="utf-8", fuzzy=False)
    for source in SOURCES:
        messages = extract_from_dir(
            ROOT / source, METHODS, OPTIONS, KEYWORDS, comment_tags=("Translators:",), strip_comment_tags=True
        )
        for filename, _line, message, comments, context in messages:
            # No line numbers: they move with every change, and translators need only the file.
            catalog.add(message, None, [(f"{source}/{filename}", 0)], auto_comments=comments, context=context)
    return catalog


def po_path(language: str) -> Path:
    return TRANSLATIONS / language / "LC_MESSAGES" / "messages.po"


def load_catalog(language: str) -> Catalog:
    """The language's catalog as stored in its file; empty when there is no file."""
    path = po_path(language)
    if not path.exists():
        return Catalog(locale=language, project="Kampania")
    with path.open("rb") as file:
        return read_po(file, locale=language)


def update_catalog(language: str) -> Catalog:
    """Add new messages to the language's file and remove unused ones; returns the catalog."""
    template, catalog = extract_messages(), load_catalog(language)
    catalog.update(template, no_fuzzy_matching=True, update_header_comment=False)
    catalog.obsolete.clear()
    # A constant header, so that two runs give the same file.
    catalog.header_comment = "# Kampania's sentences in " + LANGUAGES[language] + "."
    catalog.fuzzy, catalog.version, catalog.msgid_bugs_address = False, "", ""
    catalog.creation_date = catalog.revision_date = datetime(2026, 1, 1, tzinfo=UTC)
    catalog.last_translator = catalog.language_team = ""
    path = po_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = BytesIO()
    write_po(text, catalog, width=110, sort_output=True, omit_header=False, include_lineno=False, ignore_obsolete=True)
    path.write_bytes(text.getvalue())
    return catalog


def compile_catalog(language: str) -> bytes:
    """The binary form (.mo) of the language's file; it is committed beside it."""
    text = BytesIO()
    write_mo(text, load_catalog(language))
    return text.getvalue()


def untranslated(language: str) -> Iterator[str]:
    """Messages that are missing or empty in the language's catalog."""
    catalog = load_catalog(language)
    for message in extract_messages():
        if not message.id:
            continue
        translation = catalog.get(message.id, message.context)
        texts = (
            translation.string
            if translation and isinstance(translation.string, tuple)
            else (translation.string if translation else "",)
        )
        if translation is None or translation.fuzzy or not all(texts):
            yield message.id if isinstance(message.id, str) else message.id[0]


def main() -> None:
    for language in LANGUAGES:
        if language == "en":
            continue
        update_catalog(language)
        po_path(language).with_suffix(".mo").write_bytes(compile_catalog(language))
        missing = list(untranslated(language))
        sys.stdout.write(f"{language}: {len(missing)} strings to translate\n")
        sys.stdout.writelines(f"  {text}\n" for text in missing if "-v" in sys.argv)


if __name__ == "__main__":
    main()
