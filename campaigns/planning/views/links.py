"""Views of an activity's links: short links with QR codes, and links of a launched mail."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import segno
from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask_babel import gettext as _
from sqlalchemy.orm import Session

from campaigns.accounts.actor import Permission
from campaigns.errors import Conflict, ValidationFailed
from campaigns.planning import links, utm
from campaigns.planning.activities import get_activity
from campaigns.planning.forms import LinkForm
from campaigns.planning.models import Channel, ShortLink
from campaigns.web.pages.error_pages import add_form_problems, error_text, problem_text
from campaigns.web.request_session import db_session
from campaigns.web.security.current_actor import current_actor

blueprint = Blueprint("links", __name__)


@blueprint.route("/activities/<int:activity_id>/links", methods=["GET", "POST"])
def index(activity_id: int) -> Any:
    actor = current_actor()
    actor.require(Permission.PLAN)
    session = db_session()
    activity = get_activity(session, activity_id)
    form = LinkForm(data={"label": activity.title})
    if form.validate_on_submit():
        try:
            links.create_link(session, actor, activity, label=form.label.data or "", url=form.url.data or "")
        except ValidationFailed as error:
            add_form_problems(form, error)
        except Conflict as error:
            flash(error_text(error), "warning")
            return redirect(url_for(".index", activity_id=activity_id), 303)
        else:
            session.commit()
            flash(_("The link is made. It works within seconds."), "success")
            return redirect(url_for(".index", activity_id=activity_id), 303)
    is_mail = activity.channel is Channel.EMAIL
    page = render_template(
        "pages/planning/links.html",
        activity=activity,
        form=form,
        is_mail=is_mail,
        mail_links=links.mail_links(session, activity) if is_mail else [],
        links=links.list_links(session, activity),
        short_url=links.short_url,
        qr=_qr_drawing,
        preview=utm.append_query(
            activity.url or "https://example.org/", utm.encode_query(utm.build_parameters(activity, activity.title))
        ),
    )
    return page, 422 if form.errors else 200


@blueprint.get("/activities/<int:activity_id>/links/preview")
def preview(activity_id: int) -> str:
    """HTML fragment: the typed URL with its UTM parameters, requested by htmx while typing."""
    current_actor().require(Permission.PLAN)
    activity = get_activity(db_session(), activity_id)
    url, label = request.args.get("url", "").strip(), request.args.get("label", "")
    problem = links.url_problem(db_session(), url) if url else None
    shown = "" if problem or not url else utm.append_query(url, utm.encode_query(utm.build_parameters(activity, label)))
    return render_template("pages/planning/_link_preview.html", preview=shown, fault=problem)


@blueprint.get("/activities/<int:activity_id>/links/<int:number>/qr.svg")
def qr(activity_id: int, number: int) -> Response:
    """The QR code as an SVG file to download."""
    current_actor().require(Permission.PLAN)
    link = links.get_link(db_session(), get_activity(db_session(), activity_id), number)
    svg = BytesIO()
    _qr_code(link).save(svg, kind="svg", scale=10, border=4)
    headers = {"Content-Disposition": f'attachment; filename="{link.code}.svg"'}
    return Response(svg.getvalue(), mimetype="image/svg+xml", headers=headers)


def _qr_code(link: ShortLink) -> segno.QRCode:
    # Level Q restores 25 % of the code, e.g. under scratches or a logo; the URL is short enough for it.
    return segno.make_qr(links.short_url(link), error="q")


def _qr_drawing(link: ShortLink) -> dict[str, Any]:
    """The QR code for inline SVG: ``side`` in modules with a quiet zone of 2, and the ``path`` of the dark modules."""
    rows = [
        f"M{x} {y}h1v1h-1z"
        for y, row in enumerate(_qr_code(link).matrix_iter(border=2))
        for x, dark in enumerate(row)
        if dark
    ]
    return {"side": _qr_code(link).symbol_size(border=2)[0], "path": "".join(rows)}


@blueprint.post("/activities/<int:activity_id>/links/<int:number>/<any(off,on,redirect):verb>")
def change(activity_id: int, number: int, verb: str) -> Any:
    actor, session = current_actor(), db_session()
    actor.require(Permission.PLAN)
    link = links.get_link(session, get_activity(session, activity_id), number)
    if verb == "redirect":
        _run_change(session, lambda: links.redirect_link(session, actor, link, request.form.get("url", "")))
    else:
        _run_change(session, lambda: links.set_link_active(session, actor, link, active=verb == "on"))
    return redirect(url_for(".index", activity_id=activity_id), 303)


@blueprint.post("/activities/<int:activity_id>/mail-links/<int:number>/<any(off,on,redirect):verb>")
def change_in_mail(activity_id: int, number: int, verb: str) -> Any:
    actor, session = current_actor(), db_session()
    actor.require(Permission.LAUNCH)
    activity = get_activity(session, activity_id)
    url = {"off": links.SWITCHED_OFF, "on": None}.get(verb, request.form.get("url", "").strip() or None)
    _run_change(session, lambda: links.override_mail_link(session, actor, activity, number, url))
    return redirect(url_for(".index", activity_id=activity_id), 303)


def _run_change(session: Session, act: Callable[[], None]) -> None:
    try:
        act()
    except ValidationFailed as error:
        session.rollback()
        flash(" ".join(map(problem_text, error.problems)), "danger")
    else:
        session.commit()
        flash(_("Changed. It takes effect within ten seconds."), "success")
