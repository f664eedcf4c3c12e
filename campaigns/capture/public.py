"""Public views of landing pages, standalone or embedded in a website, and of consent confirmation."""

import hashlib
import re
import secrets
from typing import Any

from flask import Blueprint, g, make_response, redirect, render_template, request, url_for
from sqlalchemy.orm import Session

from campaigns.capture import double_opt_in, form_editing
from campaigns.capture.languages import text_direction
from campaigns.capture.models import Form, Submission
from campaigns.capture.submissions import LeadSource, SubmissionInput, accept_submission
from campaigns.errors import Conflict, InvalidTokenError, ValidationFailed, ValidationProblem
from campaigns.planning.models import Activity
from campaigns.tokens import Purpose, keyring
from campaigns.web.client_ip import client_ip, network_of
from campaigns.web.pages.error_pages import error_text
from campaigns.web.request_session import db_session
from campaigns.web.security.authentication import current_organisation
from campaigns.web.security.current_actor import public
from campaigns.web.security.rate_limits import RateLimit
from campaigns.web.security.security_headers import override_csp

blueprint = Blueprint("capture_public", __name__)

MAX_SUBMISSION_BYTES = 64 * 1024
"""Bytes of one submission, enforced before parsing; the form's own limits are narrower."""
SUBMISSIONS_PER_MINUTE = 30
"""Submissions per network: several people of one office may fill in a form at the same time."""
_submission_limit = RateLimit(SUBMISSIONS_PER_MINUTE, 60)
_PAGE_ID = re.compile(r"[0-9a-f]{32}\Z")
_HOST = re.compile(r"[a-z0-9.-]+(?::[0-9]{1,5})?\Z")
_MAX_TOKEN_LENGTH = 100


@blueprint.get("/f/<slug>")
@public
def page(slug: str) -> Any:
    return _render_form(form_editing.form_by_slug(db_session(), slug), embedded=False)


@blueprint.get("/f/<slug>/embed")
@public
def embed(slug: str) -> Any:
    return _render_form(form_editing.form_by_slug(db_session(), slug), embedded=True)


@blueprint.post("/f/<slug>")
@blueprint.post("/f/<slug>/embed")
@public
def submit(slug: str) -> Any:
    _submission_limit.check_ip(client_ip(request.environ))
    request.max_content_length = MAX_SUBMISSION_BYTES
    submitted = request.form  # parse the body before the transaction begins: a slow client must not hold it open
    session = db_session()
    form = form_editing.form_by_slug(session, slug)
    embedded = request.path.endswith("/embed")
    try:
        accept_submission(session, _read_submission(session, form))
    except ValidationFailed as error:
        return _render_form(form, embedded=embedded, typed=submitted, problems=error.problems)
    except Conflict:  # closed since the page was loaded; the page says so
        return _render_form(form, embedded=embedded, typed=submitted)
    session.commit()
    return redirect(url_for("capture_public.embedded_thanks" if embedded else "capture_public.thanks", slug=slug), 303)


@blueprint.get("/f/<slug>/thanks")
@public
def thanks(slug: str) -> Any:
    return _render_page(form_editing.form_by_slug(db_session(), slug), "form_thanks", embedded=False)


@blueprint.get("/f/<slug>/embed/thanks")
@public
def embedded_thanks(slug: str) -> Any:
    return _render_page(form_editing.form_by_slug(db_session(), slug), "form_thanks", embedded=True)


@blueprint.route("/confirm/<token>", methods=["GET", "POST"])
@public
def confirm(token: str) -> Any:
    """Show (GET) or apply (POST) a confirmation. GET changes nothing, because mail scanners follow links."""
    session = db_session()
    try:
        pending = double_opt_in.pending_consent_by_token(session, token)
    except InvalidTokenError as error:
        return _render_confirmation("confirm_bad", 404, words=error_text(error))
    form = session.get_one(Form, session.get_one(Submission, pending.submission_id).form_id)
    g.language = form.language
    if request.method == "POST":
        double_opt_in.confirm(session, pending, network_of(client_ip(request.environ)))
        session.commit()
    return _render_confirmation(
        "confirm", 200, form=form, asked=pending, address=double_opt_in.current_address(session, pending), token=token
    )


def _render_confirmation(name: str, status: int, **values: Any) -> Any:
    response = make_response(render_template(f"public/{name}.html", **values), status)
    response.headers["Referrer-Policy"] = "same-origin"  # the URL is a secret: hide it from other sites
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    response.headers["Cache-Control"] = "no-store"
    return response


def _read_submission(session: Session, form: Form) -> SubmissionInput:
    email = request.form.get("email", "")
    page_id = request.form.get("external_id", "")
    # A double click sends one page twice: the same submission. A visitor who goes back and fills the page in for
    # another person sends another address: a different submission. So the id covers page and address.
    person = hashlib.blake2b(email.strip().lower().encode(errors="replace"), digest_size=8).hexdigest()
    return SubmissionInput(
        form_id=form.id,
        external_id=f"{page_id}-{person}" if _PAGE_ID.match(page_id) else "",
        email=email,
        origin=_lead_source(session, form),
        answers={question.name: request.form.get(question.key, "") for question in form_editing.questions_of(form)},
        consents=bool(request.form.get("consent")),
        may_measure=bool(request.form.get("tracking")),
        send_id=_send_id_of_visit(request.form.get("k") or request.args.get("k", "")),
        network=network_of(client_ip(request.environ)),
    )


def _lead_source(session: Session, form: Form) -> LeadSource:
    activity = session.get_one(Activity, form.activity_id)
    return LeadSource(
        channel=activity.channel.value,
        owner_id=activity.owner_id,
        campaign=activity.campaign.name,
        activity=activity.title,
    )


def _send_id_of_visit(token: str) -> int | None:
    """Return the send whose link brought the visitor; None for a missing, expired or invalid token."""
    if not token or len(token) > _MAX_TOKEN_LENGTH:
        return None
    try:
        payload = keyring().open_expiring(Purpose.VISIT, token)
    except InvalidTokenError:
        return None
    send_id = int.from_bytes(payload)
    return send_id if len(payload) == 8 and 0 < send_id < 2**63 else None


def _render_form(form: Form, *, embedded: bool, typed: Any = None, problems: tuple[ValidationProblem, ...] = ()) -> Any:
    token = (typed or {}).get("k") or request.args.get("k", "")
    page_id = (typed or {}).get("external_id", "")
    g.language = form.language  # before problems are translated
    fields = {question.key for question in form_editing.questions_of(form)} | {"email"}
    return _render_page(
        form,
        "form",
        embedded=embedded,
        status=422 if problems else 200 if form.open else 410,
        questions=form_editing.questions_of(form),
        typed=typed or {},
        at_fields={problem.field: error_text(problem) for problem in reversed(problems) if problem.field in fields},
        others=[error_text(problem) for problem in problems if problem.field not in fields],
        external_id=page_id if _PAGE_ID.match(page_id) else secrets.token_hex(16),
        token=token if len(token) <= _MAX_TOKEN_LENGTH else "",
    )


def _render_page(form: Form, template: str, *, embedded: bool, status: int = 200, **context: Any) -> Any:
    g.language = form.language
    if embedded:
        override_csp(frame_ancestors=" ".join(["'self'", *_own_origins()]))
    response = make_response(
        render_template(
            f"public/{template}.html",
            form=form,
            embedded=embedded,
            text_direction=text_direction(form.language),
            **context,
        ),
        status,
    )
    # no-store also for "back": a page that is filled in again needs a new external_id.
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Robots-Tag"] = "noindex"
    return response


def _own_origins() -> list[str]:
    organisation = current_organisation()
    hosts = [host for host in organisation.own_hosts if _HOST.match(host)] if organisation else []
    return [f"{scheme}://{host}" for host in hosts for scheme in ("https", "http")]
