"""Service functions of an import: upload, configure, dry run, start. The worker does the rest.

States: UPLOADED → CHECKING → CHECKED → RUNNING → DONE or FAILED.
"""

from collections.abc import Sequence
from pathlib import PurePath
from typing import IO

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from campaigns import clock
from campaigns.accounts import audit
from campaigns.accounts.actor import Actor, Permission
from campaigns.audience.imports import files
from campaigns.audience.imports.column_mapping import guess_mapping, validate_mapping
from campaigns.audience.imports.csv_reader import DELIMITERS, ENCODINGS, CsvDialect, sniff_dialect
from campaigns.audience.lists import create_list, list_of
from campaigns.audience.models import ConsentLevel, ContactImport, ImportState
from campaigns.errors import Conflict, NotFound, ValidationFailed, ValidationProblem
from campaigns.i18n import N_

_ZERO_COUNTS = {
    "rows_total": 0,
    "rows_read": 0,
    "created": 0,
    "updated": 0,
    "unchanged": 0,
    "rejected": 0,
    "suppressed": 0,
    "consent_kept": 0,
}
FILE_GONE = N_("The uploaded file is no longer there. Upload it again.")


def upload(session: Session, actor: Actor, *, filename: str, stream: IO[bytes]) -> ContactImport:
    """Store an uploaded file and detect how to read it. Raises ValidationFailed when it is not a table."""
    actor.require(Permission.AUDIENCE)
    content_key = files.store_upload(stream)
    try:
        dialect = sniff_dialect(files.upload_path(content_key))
    except BaseException:
        files.delete_files(content_key)
        raise
    contact_import = ContactImport(
        filename=_safe_filename(filename),
        content_key=content_key,
        state=ImportState.UPLOADED,
        created_by=actor.id,
        created_at=clock.now(),
        problems=[],
        error="",
    )
    _apply_dialect(contact_import, dialect)
    session.add(contact_import)
    session.flush()
    audit.record(session, actor, "upload", "import", contact_import.id, filename=contact_import.filename)
    return contact_import


def _safe_filename(filename: str) -> str:
    name = PurePath(filename.replace("\\", "/")).name
    return "".join(sign for sign in name if sign.isprintable())[:200] or "contacts.csv"


def _apply_dialect(contact_import: ContactImport, dialect: CsvDialect) -> None:
    contact_import.encoding, contact_import.delimiter, contact_import.has_header = (
        dialect.encoding,
        dialect.delimiter,
        dialect.has_header,
    )
    contact_import.columns = [name[:200] for name in dialect.columns]
    contact_import.mapping = guess_mapping(dialect)


def import_of(session: Session, import_id: int) -> ContactImport:
    contact_import = session.get(ContactImport, import_id)
    if contact_import is None:
        raise NotFound(N_("There is no such import."))
    return contact_import


def all_imports() -> Select[tuple[ContactImport]]:
    return select(ContactImport)


def read_dialect(contact_import: ContactImport) -> CsvDialect:
    """Return the dialect and first rows of the stored file. Raises Conflict when the file is gone."""
    path = files.upload_path(contact_import.content_key)
    if not path.exists():
        raise Conflict(FILE_GONE)
    return sniff_dialect(path, contact_import.encoding, contact_import.delimiter, contact_import.has_header)


def update_csv_options(
    session: Session, actor: Actor, contact_import: ContactImport, *, encoding: str, delimiter: str, has_header: bool
) -> None:
    """Change encoding, delimiter and header option, and guess the mapping again.

    Raises ValidationFailed for unknown options, Conflict when the file is gone or the import has started.
    """
    actor.require(Permission.AUDIENCE)
    _require_state(contact_import, ImportState.UPLOADED, ImportState.CHECKED)
    if encoding not in ENCODINGS or delimiter not in DELIMITERS:
        raise ValidationFailed(
            ValidationProblem(N_("Choose one of the offered ways to read the file."), field="encoding")
        )
    path = files.upload_path(contact_import.content_key)
    if not path.exists():
        raise Conflict(FILE_GONE)
    _apply_dialect(contact_import, sniff_dialect(path, encoding, delimiter, has_header))
    contact_import.state = ImportState.UPLOADED
    session.flush()


def configure(
    session: Session,
    actor: Actor,
    contact_import: ContactImport,
    *,
    mapping: Sequence[str],
    list_id: int | None = None,
    new_list: str = "",
    email_consent: ConsentLevel = ConsentLevel.NONE,
    tracking_consent: ConsentLevel = ConsentLevel.NONE,
    consent_wording: str = "",
    consent_source: str = "",
) -> None:
    """Set the column mapping, the target list, and the consent that the imported people gave.

    Raises ValidationFailed for a bad mapping or incomplete consent statement, Conflict once the import has started.
    """
    actor.require(Permission.AUDIENCE)
    _require_state(contact_import, ImportState.UPLOADED, ImportState.CHECKED)
    mapping = validate_mapping(mapping, len(contact_import.columns))
    _check_consent_statement(email_consent, tracking_consent, consent_wording, consent_source)
    if new_list.strip():
        list_id = create_list(session, actor, new_list).id
    elif list_id is not None:
        list_of(session, list_id)
    contact_import.mapping = mapping
    contact_import.list_id = list_id
    contact_import.email_consent, contact_import.tracking_consent = email_consent, tracking_consent
    contact_import.consent_wording, contact_import.consent_source = consent_wording.strip(), consent_source.strip()
    contact_import.state = ImportState.UPLOADED
    session.flush()


def _check_consent_statement(email: ConsentLevel, tracking: ConsentLevel, wording: str, source: str) -> None:
    problems = []
    if email is ConsentLevel.DELIVERABILITY:
        problems.append(ValidationProblem(N_("Consent to e-mail is yes or no."), field="email_consent"))
    if email is not ConsentLevel.NONE or tracking is not ConsentLevel.NONE:
        if not source.strip():
            message = N_("Say where these people were asked, for example: paper form at the spring fair 2026.")
            problems.append(ValidationProblem(message, field="consent_source"))
        if not wording.strip():
            problems.append(
                ValidationProblem(N_("Give the words that these people agreed to."), field="consent_wording")
            )
    if len(source) > 200:
        message = N_("Longer than %(longest)s characters.")
        problems.append(ValidationProblem(message, field="consent_source", params={"longest": 200}))
    if "\x00" in wording + source:
        problems.append(ValidationProblem(N_("Contains a NUL byte."), field="consent_wording"))
    if problems:
        raise ValidationFailed(problems)


def request_dry_run(session: Session, actor: Actor, contact_import: ContactImport) -> None:
    """Request a dry run: the worker reads the file and counts what an import would change."""
    actor.require(Permission.AUDIENCE)
    validate_mapping(contact_import.mapping, len(contact_import.columns))
    _swap_state(session, contact_import, (ImportState.UPLOADED, ImportState.CHECKED), ImportState.CHECKING)


def request_import(session: Session, actor: Actor, contact_import: ContactImport) -> None:
    """Request the import. Raises Conflict unless the dry run is done, so a double click starts it once.

    A failed import continues where it stopped.
    """
    actor.require(Permission.AUDIENCE)
    if contact_import.state is ImportState.FAILED:
        _swap_state(session, contact_import, (ImportState.FAILED,), ImportState.RUNNING, keep_counts=True)
    else:
        _swap_state(session, contact_import, (ImportState.CHECKED,), ImportState.RUNNING)
    audit.record(
        session,
        actor,
        "start",
        "import",
        contact_import.id,
        filename=contact_import.filename,
        list_id=contact_import.list_id,
        email_consent=contact_import.email_consent.value,
        tracking_consent=contact_import.tracking_consent.value,
    )


def _swap_state(
    session: Session,
    contact_import: ContactImport,
    before: tuple[ImportState, ...],
    after: ImportState,
    *,
    keep_counts: bool = False,
) -> None:
    """Compare-and-swap of the state: of two simultaneous requests one succeeds."""
    session.flush()
    values = {"state": after, "claimed_at": None, "finished_at": None, "error": ""}
    changed = session.scalar(
        update(ContactImport)
        .where(ContactImport.id == contact_import.id, ContactImport.state.in_(before))
        .values(**values, **({} if keep_counts else {**_ZERO_COUNTS, "problems": []}))
        .returning(ContactImport.id)
        .execution_options(synchronize_session=False)
    )
    session.refresh(contact_import)
    if changed is None:
        _require_state(contact_import, *before)


def _require_state(contact_import: ContactImport, *states: ImportState) -> None:
    if contact_import.state in states:
        return
    if contact_import.state in (ImportState.CHECKING, ImportState.RUNNING):
        raise Conflict(N_("This import is under way already."))
    if contact_import.state is ImportState.DONE:
        raise Conflict(N_("This import is done already."))
    raise Conflict(N_("Check the file before you import it."))
