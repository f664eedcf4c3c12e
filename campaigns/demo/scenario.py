"""Scenario of ``make demo``: from an empty database to leads on a campaign's page."""

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from campaigns import config, db
from campaigns.accounts.actor import Actor
from campaigns.audience.imports import service
from campaigns.audience.models import ConsentLevel, ImportState
from campaigns.capture.form_editing import FormQuestion, create_form
from campaigns.capture.models import Form
from campaigns.content.messages import create_message
from campaigns.content.models import Message
from campaigns.delivery.models import SendState
from campaigns.delivery.preflight import run
from campaigns.delivery.sends import progress
from campaigns.demo import sample_company, simulated_bounces, simulated_visitors
from campaigns.demo.message_reader import MailReader
from campaigns.demo.progress_bar import ProgressBar
from campaigns.demo.simulated_audience import SimulatedAudience
from campaigns.demo.traffic_model import PROFILE_SHARES
from campaigns.leads.leads import enter_lead
from campaigns.mail_catcher.store import MailStore
from campaigns.planning.activities import update_activity
from campaigns.planning.launch import launch
from campaigns.planning.models import Activity, Channel

Figures = Mapping[str, str]
FetchFigures = Callable[[int], tuple[Figures, int]]
"""Returns (a campaign's figures as text, number of hits still in the settle window) by campaign id."""

SHOWN_COUNTS = ("pixels fetched", "links followed", "visits", "forms sent")
_TIMEOUT_SECONDS = 120
_MJML_PATH = Path(__file__).parent / "invitation.mjml"
_PENDING_STATES = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED)
CONSENT = "Yes, write to me about new roasts and tastings, and measure whether I read it."


class DemoFailed(Exception):
    """The demo could not be completed."""


def run_demo(*, contacts: int, seed: int, fetch_figures: FetchFigures, keeps_running: bool) -> None:
    """Run the whole demo. ``fetch_figures`` is injected, because the figures come from the tracking package."""
    started_at = time.monotonic()
    print("\nKampania: a sample company and its campaign\n", flush=True)
    with ProgressBar("Sample company"), db.transaction() as session:
        sign_ins = sample_company.create_company(session)
    list_id = _import_contacts(contacts, seed)
    with ProgressBar("Campaign, eight channels"):
        plan = _plan(list_id)
    mail_reader = MailReader(MailStore())
    with ProgressBar("Preflight and launch"):
        _launch(plan)
    audience = _send_and_read(plan, mail_reader, seed)
    _enter_event_lead(plan)
    figures = _wait_for_figures(fetch_figures, plan.campaign_id)
    _print_summary(
        plan.campaign_id, figures, sign_ins, audience, time.monotonic() - started_at, keeps_running=keeps_running
    )


def _import_contacts(contacts: int, seed: int) -> int:
    sheet = sample_company.contacts_csv(contacts, seed)
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        list_id = sample_company.get_or_create_list(session, actor).id
        upload = service.upload(session, actor, filename="friends.csv", stream=io.BytesIO(sheet))
        service.configure(
            session,
            actor,
            upload,
            mapping=sample_company.CONTACT_COLUMNS,
            list_id=list_id,
            email_consent=ConsentLevel.FULL,
            tracking_consent=ConsentLevel.FULL,
            consent_wording=CONSENT,
            consent_source="cards beside the till, autumn 2026",
        )
        service.request_dry_run(session, actor, upload)
        import_id = upload.id
    with ProgressBar("Contacts checked", contacts) as stage:
        _wait_for_import(import_id, ImportState.CHECKED, stage)
    with db.transaction() as session:
        service.request_import(session, sample_company.coordinator(session), service.import_of(session, import_id))
    with ProgressBar("Contacts imported", contacts) as stage:
        _wait_for_import(import_id, ImportState.DONE, stage)
    return list_id


def _wait_for_import(import_id: int, expected: ImportState, bar: ProgressBar) -> None:
    for _ in _poll_until_timeout("the import"):
        with db.read_only_session() as session:
            current = service.import_of(session, import_id)
        bar.update(current.rows_read)
        if current.state is expected:
            bar.update(bar.total)
            return
        if current.state is ImportState.FAILED:
            raise DemoFailed(f"the import failed: {current.error}")


@dataclass(frozen=True, slots=True)
class _DemoPlan:
    """Ids of the planned campaign and activities; paths of the landing pages by channel."""

    campaign_id: int
    email_id: int
    event_id: int
    pages: dict[Channel, str]


def _plan(list_id: int) -> _DemoPlan:
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        campaign, activities = sample_company.plan_campaign(session, actor)
        pages = {
            channel: f"/f/{_landing_page(session, actor, activities[channel], list_id).slug}"
            for channel in sample_company.LANDING_PAGES
        }
        message = _message(session, actor, campaign.name, f"{config.settings().base_url}{pages[Channel.WEB]}")
        email = activities[Channel.EMAIL]
        update_activity(session, actor, email, message_id=message.id, list_id=list_id)
        return _DemoPlan(campaign.id, email.id, activities[Channel.EVENT].id, pages)


def _landing_page(session: Session, actor: Actor, activity: Activity, list_id: int) -> Form:
    title, intro = sample_company.LANDING_PAGES[activity.channel]
    return create_form(
        session,
        actor,
        campaign_id=activity.campaign_id,
        activity_id=activity.id,
        title=title,
        intro=intro,
        button="Ask for my box",
        thanks="Thank you. We will write as soon as your box is packed.",
        fields=[FormQuestion("first_name", "First name", required=True), FormQuestion("attributes.city", "City")],
        consent_wording="Yes, write to me about new roasts and tastings.",
        tracking_wording="You may also measure whether I open your mails and follow their links.",
        list_id=list_id,
    )


def _message(session: Session, actor: Actor, name: str, landing: str) -> Message:
    return create_message(
        session,
        actor,
        name=name,
        subject="{{ contact.first_name }}, your winter tasting box",
        preheader="Plum, hazelnut, a little cedar. Two hundred boxes are kept back for you.",
        mjml=_MJML_PATH.read_text().replace("LANDING", landing),
    )


def _launch(plan: _DemoPlan) -> None:
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        preflight = run.evaluate_and_save(session, actor, session.get_one(Activity, plan.email_id))
        if not preflight.passed:
            raise DemoFailed(f"the preflight found errors: {preflight.findings}")
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        for activity in session.scalars(select(Activity).where(Activity.campaign_id == plan.campaign_id)):
            launch(session, actor, activity)


def _send_and_read(plan: _DemoPlan, mail_reader: MailReader, seed: int) -> SimulatedAudience:
    """Send the mails while the audience reads them and visitors of the other channels arrive."""
    settings = config.settings()
    landing = plan.pages[Channel.WEB]
    audience = SimulatedAudience(settings.base_url, landing, seed, settings.time_scale)
    simulated_visitors.schedule_visits(
        audience, {c: path for c, path in plan.pages.items() if c is not Channel.WEB}, seed
    )
    all_sent = threading.Event()
    reader_thread = threading.Thread(target=_run_audience, args=(audience, mail_reader, all_sent), daemon=True)
    reader_thread.start()
    with ProgressBar("Mails sent", 1) as bar:
        sent = _wait_for_sends(plan.email_id, bar)
    simulated_bounces.deliver_reports(mail_reader.caught_mails(), plan.email_id, seed)
    with ProgressBar("Audience reads", 1) as bar:
        for _ in _poll_until_timeout("the audience"):
            if mail_reader.read_count >= sent:
                all_sent.set()
            bar.total = max(1, audience.scheduled)
            bar.update(audience.performed, ", ".join(f"{audience.counts[what]:,} {what}" for what in SHOWN_COUNTS))
            if not reader_thread.is_alive():
                break
    return audience


def _enter_event_lead(plan: _DemoPlan) -> None:
    """Enter a lead by hand, without a form."""
    with db.transaction() as session:
        enter_lead(
            session,
            sample_company.coordinator(session),
            campaign_id=plan.campaign_id,
            activity_id=plan.event_id,
            source=Channel.EVENT.value,
            email="dato.kiknadze@restaurant.example",
            first_name="Dato",
            last_name="Kiknadze",
            notes="Runs a small restaurant. Asked at the counter about beans for the winter.",
        )


def _wait_for_sends(email_id: int, bar: ProgressBar) -> int:
    for _ in _poll_until_timeout("sending"):
        with db.read_only_session() as session:
            counts = progress.count_by_state(session, email_id)
            expanded = session.get_one(Activity, email_id).email.expanded_at is not None
        waiting = sum(counts.get(state, 0) for state in _PENDING_STATES)
        bar.total = max(1, sum(counts.values()))
        bar.update(bar.total - waiting if expanded else 0)
        if expanded and not waiting:
            break
    return counts.get(SendState.SENT, 0)


def _run_audience(audience: SimulatedAudience, mail_reader: MailReader, all_sent: threading.Event) -> None:
    next_poll_at = 0.0

    def poll_mails() -> None:
        nonlocal next_poll_at
        if time.monotonic() >= next_poll_at:
            audience.schedule_mails(mail_reader.read_new())
            next_poll_at = time.monotonic() + 0.2

    audience.run(all_sent.is_set, poll_mails)


def _wait_for_figures(fetch_figures: FetchFigures, campaign_id: int) -> Figures:
    """Return the figures once no hit is in the settle window and all bounces are processed."""
    with ProgressBar("Hits settle") as stage:
        for _ in _poll_until_timeout("settlement"):
            figures, settling = fetch_figures(campaign_id)
            stage.update(0, f"{settling:,} left" if settling else "")
            if not settling and simulated_bounces.all_processed():
                break
    return figures


def _poll_until_timeout(what: str) -> Iterator[None]:
    """Yield every 0.2 seconds until the caller breaks out of the loop. Raises DemoFailed after the timeout."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        yield
        time.sleep(0.2)
    raise DemoFailed(
        f"{what} took longer than {_TIMEOUT_SECONDS} seconds; the logs are in {config.settings().var / 'log'}"
    )


def _print_summary(
    campaign_id: int,
    figures: Figures,
    logins: list[sample_company.DemoLogin],
    audience: SimulatedAudience,
    seconds: float,
    *,
    keeps_running: bool,
) -> None:
    base = config.settings().base_url
    print(f"\nThe campaign brought, {seconds:.0f} s after the start:\n")
    for label, value in figures.items():
        print(f"  {label:<24} {value}")
    print("\nWho read it: " + ", ".join(f"{audience.counts[family]:,} {family.value}" for family in PROFILE_SHARES))
    if audience.problems:
        print(f"{len(audience.problems)} requests of the audience failed, the first: {audience.problems[0]}")
    print(f"\n  Performance   {base}/campaigns/{campaign_id}/performance")
    print(f"  Caught mail   {base}/catcher")
    print("  Sign in as")
    for each in logins:
        print(f"    {each.email:<34} {each.password:<14} {each.name}, {each.role}")
    if keeps_running:
        print("\nEverything keeps running. Ctrl-C stops it; `make demo` again sends another campaign.", flush=True)
