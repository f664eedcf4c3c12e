"""Helpers for import tests: upload a file, run its dry run and import, reload its row."""

import io
from typing import Any

from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import runner, service
from campaigns.audience.models import ConsentLevel, ContactImport, ImportState

CONSENT_OPTIONS = {
    "email_consent": ConsentLevel.FULL,
    "tracking_consent": ConsentLevel.FULL,
    "consent_wording": "Yes, write to me.",
    "consent_source": "Spring fair",
}


def upload_file(session: Session, content: str | bytes, **options: Any) -> ContactImport:
    """Upload a file with its guessed mapping; ``options`` are passed to ``service.configure``."""
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    contact_import = service.upload(session, SYSTEM, filename="people.csv", stream=stream)
    if options:
        service.configure(session, SYSTEM, contact_import, **{"mapping": contact_import.mapping, **options})
    return contact_import


def run_dry_run(content: str | bytes, **options: Any) -> ContactImport:
    """Upload, configure and run the dry run."""
    with db.transaction() as session:
        contact_import = upload_file(session, content, **options)
        service.request_dry_run(session, SYSTEM, contact_import)
    runner.run(contact_import.id)
    return reload_import(contact_import)


def run_import(content: str | bytes, **options: Any) -> ContactImport:
    """Upload, configure, run the dry run and the import."""
    contact_import = run_dry_run(content, **options)
    assert contact_import.state is ImportState.CHECKED, contact_import.error
    start_import(contact_import)
    runner.run(contact_import.id)
    return reload_import(contact_import)


def start_import(contact_import: ContactImport) -> None:
    with db.transaction() as session:
        service.request_import(session, SYSTEM, service.import_of(session, contact_import.id))


def reload_import(contact_import: ContactImport) -> ContactImport:
    with db.read_only_session() as session:
        return service.import_of(session, contact_import.id)


def counts(contact_import: ContactImport) -> tuple[int, int, int, int]:
    """Return (created, updated, unchanged, rejected)."""
    return contact_import.created, contact_import.updated, contact_import.unchanged, contact_import.rejected
