"""Conversion of errors to pages and status codes, and of validation problems to form errors."""

from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, jsonify, render_template, request
from flask_babel import gettext as _
from flask_login import current_user
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from werkzeug.exceptions import HTTPException, InternalServerError
from wtforms import Form

from campaigns.errors import (
    Conflict,
    Forbidden,
    InvalidTokenError,
    KampaniaError,
    NotFound,
    RateLimited,
    TemporaryError,
    Unauthorized,
    ValidationFailed,
    ValidationProblem,
)
from campaigns.i18n import N_
from campaigns.web.i18n.formatting import number, translated

STATUS: dict[type[KampaniaError], int] = {
    ValidationFailed: 400,
    InvalidTokenError: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    RateLimited: 429,
    TemporaryError: 503,
}
TITLES = {
    400: N_("That did not make sense"),
    401: N_("Please sign in"),
    403: N_("This is not open to you"),
    404: N_("There is nothing here"),
    405: N_("That cannot be done here"),
    409: N_("That is not possible any more"),
    413: N_("That was too large"),
    429: N_("Too many requests"),
    500: N_("Something broke on our side"),
    503: N_("Not just now"),
}
MESSAGES = {
    400: N_("The request was incomplete or damaged. Go back and try again."),
    401: N_("This page is for people who are signed in."),
    403: N_("Your role does not allow this."),
    404: N_("The address is wrong, or what stood here is gone."),
    405: N_("This address does not answer that kind of request."),
    409: N_("Somebody or something was faster. Look at the present state and decide again."),
    413: N_("What you sent is larger than we accept. Nothing was changed."),
    429: N_("You asked more often than we can answer. Please wait a moment."),
    500: N_("It was written to the log. Nothing you did was half-saved."),
    503: N_("Something we need is not answering at the moment. Please try again in a minute."),
}


def error_text(error: KampaniaError | ValidationProblem) -> str:
    """The error's message in the reader's language."""
    text = translated(error.message)
    try:
        return text % error.params if error.params else text
    except (KeyError, ValueError, TypeError):  # The translation lacks a placeholder; fall back to English.
        return str(error)


_SINGLE_LINE_FIELDS = {"subject": N_("Subject"), "preheader": N_("Preheader")}


def problem_text(problem: ValidationProblem) -> str:
    """A problem's message with its line number, if any; single-line fields are named instead."""
    if problem.line is None:
        return error_text(problem)
    if problem.field in _SINGLE_LINE_FIELDS:
        return f"{translated(_SINGLE_LINE_FIELDS[problem.field])}: {error_text(problem)}"
    return str(_("Line %(line)s: %(text)s", line=number(problem.line), text=error_text(problem)))


def _field_problem_text(problem: ValidationProblem) -> str:
    return error_text(problem) if problem.field in _SINGLE_LINE_FIELDS else problem_text(problem)


def add_form_problems(form: Form, error: ValidationFailed) -> None:
    """Add each problem to its field; problems without a field of this form go to ``form.form_errors``."""
    for problem in error.problems:
        field = form[problem.field] if problem.field and problem.field in form else None
        if field is None:
            form.form_errors.append(problem_text(problem))
        else:
            field.errors = [*field.errors, _field_problem_text(problem)]


def _json_response(
    status: int, message: str, problems: Sequence[ValidationProblem], headers: dict[str, str] | None
) -> Response:
    """The error for an API client, with the place of each problem; the message alone contains all problems as well."""
    if problems:
        message = "; ".join((f"{each.field}: " if each.field else "") + _field_problem_text(each) for each in problems)
    places = [{"field": problem.field, "row": problem.line, "message": error_text(problem)} for problem in problems]
    answer = jsonify(error={"status": status, "message": message, "problems": places})
    answer.status_code = status
    answer.headers.extend(headers or {})
    return answer


def _error_response(
    status: int, message: str = "", headers: dict[str, str] | None = None, problems: Sequence[ValidationProblem] = ()
) -> Response:
    """The error page: a fragment for htmx, else a page in the layout for signed-in users or for anonymous visitors."""
    words = message or translated(MESSAGES.get(status, MESSAGES[500 if status >= 500 else 400]))
    title = translated(TITLES.get(status, TITLES[500 if status >= 500 else 400]))
    if g.get("wants_json"):
        return _json_response(status, message or words, problems, headers)
    if request.headers.get("HX-Request"):
        template = "pages/errors/_error.html"
    elif "application/json" in request.accept_mimetypes.values() and not request.accept_mimetypes.accept_html:
        return Response(f'{{"error": {status}}}\n', status, headers, content_type="application/json")
    else:
        inside = not g.get("database_away") and current_user.is_authenticated
        template = "pages/errors/signed_in.html" if inside else "pages/errors/signed_out.html"
    body = render_template(template, status=status, title=title, words=words)
    return Response(body, status, headers, content_type="text/html; charset=utf-8")


def _on_kampania_error(error: KampaniaError) -> Response:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    message = "; ".join(map(problem_text, error.problems)) if isinstance(error, ValidationFailed) else error_text(error)
    _roll_back()
    retry_after = error.retry_after if isinstance(error, RateLimited) else 30
    problems = error.problems if isinstance(error, ValidationFailed) else ()
    return _error_response(
        status, message, {"Retry-After": str(retry_after)} if isinstance(error, TemporaryError) else None, problems
    )


def _on_http_error(error: HTTPException) -> Any:
    if error.code is None or error.code < 400:
        return error  # A redirect.
    if isinstance(error, InternalServerError) and error.original_exception is not None:
        return _on_unexpected_error(error.original_exception)
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    message = _("The form was open too long, or cookies are off. Please load the page again.")
    return _error_response(error.code, message if isinstance(error, CSRFError) else "", headers)


def _on_database_error(error: DBAPIError) -> Response:
    """Error page for a database error. When the database is unavailable, the page is rendered without any query.

    A refused value (DataError) gives 400 and a concurrent insert (IntegrityError) 409.
    """
    if isinstance(error, DataError | IntegrityError):
        _log_error("database", error)
        _roll_back()
        return _error_response(400 if isinstance(error, DataError) else 409)
    if not (isinstance(error, OperationalError) or error.connection_invalidated):
        return _on_unexpected_error(error)
    _log_error("database", error)
    g.database_away = True
    g.pop("organisation", None)
    g.pop("_login_user", None)
    return _error_response(
        503, translated(N_("The database does not answer. Please try again in a minute.")), {"Retry-After": "30"}
    )


def _on_unexpected_error(error: BaseException) -> Response:
    _log_error("unexpected", error)
    _roll_back()
    try:
        return _error_response(500)
    except Exception as second:  # The error page itself fails, or something that it needs.
        _log_error("error page", second)
        return Response("500\n", 500, content_type="text/plain")


def _roll_back() -> None:
    """Roll back, so that the queries of the error page don't see the changes of the failed service function."""
    session = g.get("db_session")
    if session is not None:
        session.rollback()
        g.pop("organisation", None)
        g.pop("_login_user", None)


def _log_error(kind: str, error: BaseException) -> None:
    place = f"{request.method} {request.path}" if has_request_context() else "-"
    current_app.logger.error("%s error at %s", kind, place, exc_info=error)


def init(app: Flask) -> None:
    app.register_error_handler(KampaniaError, _on_kampania_error)
    app.register_error_handler(DBAPIError, _on_database_error)
    app.register_error_handler(HTTPException, _on_http_error)
