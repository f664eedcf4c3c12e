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
from campaigns.demo.traffic_model import SHARES
from campaigns.leads.leads import enter_lead
from campaigns.mail_catcher.store import MailStore
from campaigns.planning.activities import update_activity
from campaigns.planning.launch import launch
from campaigns.planning.models import Activity, Channel

Figures = Mapping[str, str]
Ask = Callable[[int], tuple[Figures, int]]
"""Returns (a campaign's figures as text, number of hits still in the settle window) by campaign id."""

SHOWN = ("pixels fetched", "links followed", "visits", "forms sent")
_PATIENCE = 120
_MESSAGE = Path(__file__).parent / "invitation.mjml"
_WAITING = (SendState.QUEUED, SendState.SENDING, SendState.DEFERRED)
CONSENT = "Yes, write to me about new roasts and tastings, and measure whether I read it."


class DemoFailed(Exception):
    """The demo could not be completed."""


def tell(*, people: int, seed: int, figures: Ask, stays: bool) -> None:
    """Run the whole demo. ``fetch_figures`` is injected, because the figures come from the tracking package."""
    began = time.monotonic()
    print("\nKampania: a sample company and its campaign\n", flush=True)
    with ProgressBar("Sample company"), db.transaction() as session:
        sign_ins = sample_company.found_company(session)
    list_id = _import_contacts(people, seed)
    with ProgressBar("Campaign, eight channels"):
        plan = _plan(list_id)
    postman = MailReader(MailStore())
    with ProgressBar("Preflight and launch"):
        _launch(plan)
    audience = _send_and_read(plan, postman, seed)
    _meet_at_the_roastery(plan)
    told = _wait_for(figures, plan.campaign_id)
    _conclude(plan.campaign_id, told, sign_ins, audience, time.monotonic() - began, stays=stays)


def _import_contacts(people: int, seed: int) -> int:
    sheet = sample_company.contacts_csv(people, seed)
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        list_id = sample_company.readers(session, actor).id
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
        service.check(session, actor, upload)
        import_id = upload.id
    with ProgressBar("Contacts checked", people) as stage:
        _wait_for_import(import_id, ImportState.CHECKED, stage)
    with db.transaction() as session:
        service.start(session, sample_company.coordinator(session), service.import_of(session, import_id))
    with ProgressBar("Contacts imported", people) as stage:
        _wait_for_import(import_id, ImportState.DONE, stage)
    return list_id


def _wait_for_import(import_id: int, wanted: ImportState, stage: ProgressBar) -> None:
    for _ in _patiently("the import"):
        with db.reading() as session:
            current = service.import_of(session, import_id)
        stage.show(current.rows_read)
        if current.state is wanted:
            stage.show(stage.total)
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
            for channel in sample_company.PAGES
        }
        message = _message(session, actor, campaign.name, f"{config.settings().base_url}{pages[Channel.WEB]}")
        email = activities[Channel.EMAIL]
        update_activity(session, actor, email, message_id=message.id, list_id=list_id)
        return _DemoPlan(campaign.id, email.id, activities[Channel.EVENT].id, pages)


def _landing_page(session: Session, actor: Actor, activity: Activity, list_id: int) -> Form:
    title, intro = sample_company.PAGES[activity.channel]
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
        mjml=_MESSAGE.read_text().replace("LANDING", landing),
    )


def _launch(plan: _DemoPlan) -> None:
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        found = run.check(session, actor, session.get_one(Activity, plan.email_id))
        if not found.passed:
            raise DemoFailed(f"the preflight found errors: {found.findings}")
    with db.transaction() as session:
        actor = sample_company.coordinator(session)
        for activity in session.scalars(select(Activity).where(Activity.campaign_id == plan.campaign_id)):
            launch(session, actor, activity)


def _send_and_read(plan: _DemoPlan, postman: MailReader, seed: int) -> SimulatedAudience:
    """Send the mails while the audience reads them and visitors of the other channels arrive."""
    settings = config.settings()
    landing = plan.pages[Channel.WEB]
    audience = SimulatedAudience(settings.base_url, landing, seed, settings.time_scale)
    simulated_visitors.invite(audience, {c: path for c, path in plan.pages.items() if c is not Channel.WEB}, seed)
    everything_sent = threading.Event()
    reading = threading.Thread(target=_read, args=(audience, postman, everything_sent), daemon=True)
    reading.start()
    with ProgressBar("Mails sent", 1) as stage:
        sent = _watch_sends(plan.email_id, stage)
    simulated_bounces.send_back(postman.caught(), plan.email_id, seed)
    with ProgressBar("Audience reads", 1) as stage:
        for _ in _patiently("the audience"):
            if postman.brought >= sent:
                everything_sent.set()
            stage.total = max(1, audience.planned)
            stage.show(audience.acted, ", ".join(f"{audience.tally[what]:,} {what}" for what in SHOWN))
            if not reading.is_alive():
                break
    return audience


def _meet_at_the_roastery(plan: _DemoPlan) -> None:
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


def _watch_sends(email_id: int, stage: ProgressBar) -> int:
    for _ in _patiently("sending"):
        with db.reading() as session:
            counts = progress.counts(session, email_id)
            expanded = session.get_one(Activity, email_id).email.expanded_at is not None
        waiting = sum(counts.get(state, 0) for state in _WAITING)
        stage.total = max(1, sum(counts.values()))
        stage.show(stage.total - waiting if expanded else 0)
        if expanded and not waiting:
            break
    return counts.get(SendState.SENT, 0)


def _read(audience: SimulatedAudience, postman: MailReader, everything_sent: threading.Event) -> None:
    next_time = 0.0

    def bring() -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            audience.read(postman.bring())
            next_time = time.monotonic() + 0.2

    audience.live(everything_sent.is_set, bring)


def _wait_for(figures: Ask, campaign_id: int) -> Figures:
    """Return the figures once no hit is in the settle window and all bounces are processed."""
    with ProgressBar("Hits settle") as stage:
        for _ in _patiently("settlement"):
            told, settling = figures(campaign_id)
            stage.show(0, f"{settling:,} left" if settling else "")
            if not settling and simulated_bounces.all_read():
                break
    return told


def _patiently(what: str) -> Iterator[None]:
    """Yield every 0.2 seconds until the caller breaks out of the loop. Raises DemoFailed after the timeout."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        yield
        time.sleep(0.2)
    raise DemoFailed(f"{what} took longer than {_PATIENCE} seconds; the logs are in {config.settings().var / 'log'}")


def _conclude(
    campaign_id: int,
    told: Figures,
    sign_ins: list[sample_company.DemoLogin],
    audience: SimulatedAudience,
    took: float,
    *,
    stays: bool,
) -> None:
    base = config.settings().base_url
    print(f"\nThe campaign brought, {took:.0f} s after the start:\n")
    for label, value in told.items():
        print(f"  {label:<24} {value}")
    print("\nWho read it: " + ", ".join(f"{audience.tally[family]:,} {family.value}" for family in SHARES))
    if audience.problems:
        print(f"{len(audience.problems)} requests of the audience failed, the first: {audience.problems[0]}")
    print(f"\n  Performance   {base}/campaigns/{campaign_id}/performance")
    print(f"  Caught mail   {base}/catcher")
    print("  Sign in as")
    for each in sign_ins:
        print(f"    {each.email:<34} {each.password:<14} {each.name}, {each.role}")
    if stays:
        print("\nEverything keeps running. Ctrl-C stops it; `make demo` again sends another campaign.", flush=True)
