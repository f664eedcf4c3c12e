"""Bulk creation of contacts with full consent."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from campaigns import clock, db


def make_contacts(session: Session, count: int) -> None:
    at = clock.now()
    values = {"people": count, "now": db.to_micros(at) if session.get_bind().dialect.name == "sqlite" else at}
    session.execute(_CONTACTS, values)
    session.execute(_CONSENT, values)


_CONTACTS = text(
    """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :people)
    INSERT INTO contacts (email, first_name, last_name, attributes, source, created_at, updated_at)
    SELECT 'p' || i || '@example.org', 'Ana' || i, 'Bel', '{"city": "Tbilisi", "likes": "tea, chess, snow"}',
      '', :now, :now
    FROM n
    """
)
_CONSENT = text(
    """
    INSERT INTO consent_log (contact_id, purpose, level, at, source, wording, evidence, recorded_by)
    SELECT id, p, 'full', :now, '', '', '{}', '' FROM contacts, (SELECT 'email' AS p UNION SELECT 'tracking') AS q
    """
)
