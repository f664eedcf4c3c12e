"""${message}."""

% if "op." in (upgrades or "") and "sa." in upgrades:
import sqlalchemy as sa
% elif "sa." in (upgrades or ""):
import sqlalchemy as sa
% endif
from alembic import op
% if "db." in (upgrades or ""):

from campaigns import db
% endif

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
