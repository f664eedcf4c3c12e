"""The application factory and the layout of every page."""

from enum import StrEnum

import pytest
from flask import Flask, g, render_template_string
from flask_login import login_user
from flask_wtf import FlaskForm
from wtforms import BooleanField, RadioField, SelectField, StringField, TextAreaField
from wtforms.validators import DataRequired

from campaigns import db
from campaigns.accounts.models import Role, User
from campaigns.web.pages.form_choices import choices
from campaigns.web.security.authentication import SessionUser


class Form(FlaskForm):  # type: ignore[misc]
    name = StringField("Name", [DataRequired()], description="Your name")
    words = TextAreaField("Words")
    agree = BooleanField("100 % agreed")
    colour = SelectField("Colour", choices=choices([("r", "Red")]))
    size = RadioField("Size", choices=choices([("s", "Small"), ("l", "Large")]))


PAGE = """
{% extends "ui/layout.html" %}
{% from "ui/field.html" import field, submit, hidden, csrf %}
{% from "ui/table.html" import table, pager %}
{% from "ui/badge.html" import badge, status %}
{% from "ui/empty.html" import empty %}
{% from "ui/figure.html" import figure %}
{% from "ui/progress.html" import progress %}
{% from "ui/chart.html" import chart %}
{% from "ui/icon.html" import icon %}
{% from "ui/confirm.html" import action %}
{% from "ui/tabs.html" import tabs %}
{% block title %}Everything{% endblock %}
{% block subheading %}below{% endblock %}
{% block actions %}<a class="btn">Go</a>{% endblock %}
{% block content %}
<form method="post">{{ hidden(form) }}{{ csrf() }}
{{ field(form.name, hint="Hint & more", width="col-6") }}{{ field(form.words) }}{{ field(form.agree) }}
{{ field(form.colour) }}{{ field(form.size) }}{{ submit(_("Save"), icon="check") }}</form>
{% call table([_("Name"), {"text": _("Sent"), "numeric": true}, {"text": _("Actions"), "hidden": true}],
               caption=_("Rows")) %}
<tr><td>a</td><td>{{ 1234|number }}</td></tr>{% endcall %}
{{ badge("new") }}{{ status(role) }}
{% call empty("Nothing", "Start here", icon="inbox") %}<a class="btn btn-primary">New</a>{% endcall %}
{{ empty("Nothing", "") }}
{{ figure("Leads", 3|number, detail="of 9", note="n", href="/leads") }}
{{ progress(3, 10, "Sent") }}{{ progress(3, 10, "Sent", parts=[(1, "green", "Sent"), (2, "red", "Failed")]) }}
{{ chart("c1", {"kind": "line", "x": ["2026-11-22T10:00:00+00:00"],
                "series": [{"name": "<Opens>", "values": [None], "tone": "primary"}]}, "Opens") }}
{{ action("/x", "Delete", confirm="Sure? \\"yes\\"", icon="trash", method_fields={"a": "b"}) }}{{ action("/x", "Go") }}
{{ tabs([("One", "/1", true), ("Two", "/2", false)]) }}
{% endblock %}
"""


@pytest.mark.parametrize("language", ["en", "fa"])
@pytest.mark.parametrize("role", list(Role))
def test_every_macro_renders_in_the_layout(app: Flask, language: str, role: StrEnum) -> None:
    with app.test_request_context("/campaigns", method="POST", data={"name": ""}):
        g.language = language
        with db.read_only_session() as rows:
            person = rows.query(User).filter_by(role=role).one()
        login_user(SessionUser(person))
        form = Form()
        form.validate()
        html = render_template_string(PAGE, form=form, role=role)
    assert html.count("<h1") == 1
    assert ('dir="rtl"' in html) == (language == "fa")
    assert "style=" not in html
    assert "<script>" not in html
    assert 'aria-describedby="name-hint name-errors"' in html
    assert "&lt;Opens&gt;" in html
    assert ('href="/people"' in html) == (role is Role.OWNER)
    assert ('href="/contacts"' in html) == (role is not Role.VIEWER)
