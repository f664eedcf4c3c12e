"""Helpers for import tests: upload a file, run its dry run and import, reload its row."""

import io
from typing import Any

from sqlalchemy.orm import Session

from campaigns import db
from campaigns.accounts.actor import SYSTEM
from campaigns.audience.imports import runner, service
from campaigns.audience.models import ConsentLevel, ContactImport, ImportState

ASKED = {
    "email_consent": ConsentLevel.FULL,
    "tracking_consent": ConsentLevel.FULL,
    "consent_wording": "Yes, write to me.",
    "consent_source": "Spring fair",
}


def uploaded(session: Session, content: str | bytes, **terms: Any) -> ContactImport:
    """Upload a file with its guessed mapping; ``options`` are passed to ``service.configure``."""
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    found = service.upload(session, SYSTEM, filename="people.csv", stream=stream)
    if terms:
        service.configure(session, SYSTEM, found, **{"mapping": found.mapping, **terms})
    return found


def checked(content: str | bytes, **terms: Any) -> ContactImport:
    """Upload, configure and run the dry run."""
    with db.transaction() as session:
        found = uploaded(session, content, **terms)
        service.check(session, SYSTEM, found)
    runner.run(found.id)
    return again(found)


def imported(content: str | bytes, **terms: Any) -> ContactImport:
    """Upload, configure, run the dry run and the import."""
    found = checked(content, **terms)
    assert found.state is ImportState.CHECKED, found.error
    begin(found)
    runner.run(found.id)
    return again(found)


def begin(found: ContactImport) -> None:
    with db.transaction() as session:
        service.start(session, SYSTEM, service.import_of(session, found.id))


def again(found: ContactImport) -> ContactImport:
    with db.reading() as session:
        return service.import_of(session, found.id)


def counts(found: ContactImport) -> tuple[int, int, int, int]:
    """Return (created, updated, unchanged, rejected)."""
    return found.created, found.updated, found.unchanged, found.rejected
