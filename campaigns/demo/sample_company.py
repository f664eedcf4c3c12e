"""Sample company: created through the service functions that the web forms call."""

import csv
import io
import json
import os
import random
import secrets
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from campaigns import clock, config
from campaigns.accounts import users
from campaigns.accounts.actor import Actor
from campaigns.accounts.models import Organisation, Role, User
from campaigns.accounts.organisation import create_organisation, organisation
from campaigns.audience.lists import create_list
from campaigns.audience.models import ContactList
from campaigns.planning.activities import create_activity
from campaigns.planning.campaigns import create_campaign
from campaigns.planning.models import Activity, Campaign, Channel, Objective

COMPANY = "Kettle & Pine"
LIST_NAME = "Friends of the roastery"
USERS = (
    ("Nino Beridze", "nino@kettleandpine.example", Role.OWNER),
    ("Camille Laurent", "camille@kettleandpine.example", Role.COORDINATOR),
    ("Reza Karimi", "reza@kettleandpine.example", Role.VIEWER),
)
_ACTIVITIES: tuple[tuple[Channel, str, int, int, str, str], ...] = (
    (Channel.EMAIL, "Invitation to the winter tasting", 0, 14, "180.00", ""),
    (Channel.WEB, "Landing page: a tasting box at home", 0, 30, "120.00", ""),
    (Channel.SOCIAL, "Five posts from behind the roaster", -3, 12, "240.00", "https://social.example/kettleandpine"),
    (Channel.SEARCH, "Guide page for “winter coffee”", -14, 30, "320.00", "https://kettleandpine.example/winter"),
    (Channel.ADS, "Sponsored posts in three cities", -2, 10, "900.00", "https://ads.example/kettle/winter"),
    (Channel.CONTENT, "Article: brewing when it is cold", -5, 30, "150.00", "https://kettleandpine.example/blog/cold"),
    (Channel.VIDEO, "Two minutes with our roaster", -4, 30, "650.00", "https://video.example/kettle-roaster"),
    (Channel.EVENT, "Open roastery on Saturday", 12, 12, "400.00", "https://kettleandpine.example/open-day"),
)
_FIRST_NAMES = """
Ana Anar Aysel Bahar Camille Daniel Darya Elene Emma Farid Giorgi Hugo Ivan Jules Kamran Keti Laila Léa
Louis Luka Maryam Mehdi Mila Nargiz Natia Nika Olga Omid Parisa Rustam Salome Sara Shirin Sofia Tamar
Tariel Thomas Vusal Yana Zoé
""".split()  # noqa: SIM905
_LAST_NAMES = """
Abbasi Aliyev Beridze Bernard Bondar Dubois Faure Fischer Gelashvili Guliyev Hosseini Ivanova Jafari
Kapanadze Karimi Kiknadze Laurent Lomidze Mammadova Martin Moreau Morozov Novak Petit Rahimi Rossi
Sidorova Tavakoli Volkova
""".split()  # noqa: SIM905
_CITIES = """
Tbilisi Batumi Paris Lyon Tehran Shiraz Baku Ganja Yerevan Berlin
""".split()  # noqa: SIM905
_MAIL_HOSTS = ("mail.example.net", "post.example.org", "inbox.example.com", "letters.example.net")


LANDING_PAGES: dict[Channel, tuple[str, str]] = {
    Channel.WEB: (
        "A tasting box for the long evenings",
        "Three small bags of the winter blend, a brewing card and a cup to keep. "
        "Tell us where to write, and we will let you know when yours is packed.",
    ),
    Channel.SOCIAL: (
        "You have seen us roast. Now taste it.",
        "The coffee from the five posts, in three small bags. Tell us where to write.",
    ),
    Channel.SEARCH: (
        "Which coffee for the winter?",
        "A short guide and a small bag to try it with. We send both to whoever asks.",
    ),
    Channel.ADS: (
        "A tasting box in your city",
        "We bring the winter blend to three cities this month. Say that you want one.",
    ),
    Channel.CONTENT: (
        "The brewing card to the article",
        "Five small changes on one card, with a bag to practise on.",
    ),
    Channel.EVENT: (
        "Come to the open roastery",
        "Saturday from ten to four. Tell us that you come, and we keep a cup warm.",
    ),
}
"""Title and introduction of the landing pages, by channel. The mail links to the page of the channel WEB."""


class ForeignDatabaseError(Exception):
    """The database holds an organisation that the demo did not create."""


@dataclass(frozen=True, slots=True)
class DemoLogin:
    name: str
    email: str
    role: str
    password: str


def _logins_path(settings: config.Settings) -> Path:
    return settings.var / "demo.json"


def load_logins(settings: config.Settings) -> list[DemoLogin]:
    """Load the demo's logins with passwords (a file readable by its owner only); empty before the first demo."""
    try:
        return [DemoLogin(**each) for each in json.loads(_logins_path(settings).read_text())]
    except FileNotFoundError:
        return []


def create_company(session: Session) -> list[DemoLogin]:
    """Create the company and its users with random passwords at the first demo. Raises ForeignDatabaseError."""
    settings = config.settings()
    existing = load_logins(settings)
    if session.scalar(select(func.count()).select_from(Organisation)):
        if not existing:
            raise ForeignDatabaseError(
                "this database holds an organisation of your own; set KAMPANIA_VAR to another folder"
            )
        return existing
    logins = [DemoLogin(name, email, role.value, secrets.token_urlsafe(9)) for name, email, role in USERS]
    owner, *others = logins
    owner_user = create_organisation(
        session,
        name=COMPANY,
        sender_email="hello@kettleandpine.example",
        language="en",
        timezone="Europe/Paris",
        currency="EUR",
        owner_name=owner.name,
        owner_email=owner.email,
        owner_password=owner.password,
    )
    session.flush()
    for each in others:
        users.add_user(
            session,
            Actor.of_user(owner_user),
            email=each.email,
            name=each.name,
            role=Role(each.role),
            password=each.password,
        )
    organisation(session).postal_address = "12 Harbour Lane, 75010 Paris"
    _save_logins(settings, logins)
    return logins


def _save_logins(settings: config.Settings, logins: list[DemoLogin]) -> None:
    path = _logins_path(settings)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump([{name: getattr(each, name) for name in DemoLogin.__slots__} for each in logins], file)


def coordinator(session: Session) -> Actor:
    """Return the user who does the demo's work."""
    return Actor.of_user(session.scalars(select(User).where(User.email == USERS[1][1])).one())


def contacts_csv(number: int, seed: int) -> bytes:
    """Return a CSV file of contacts as a coordinator would upload it."""
    rng = random.Random(seed)
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["E-mail", "First name", "Last name", "City", "Favourite"])
    for index in range(number):
        first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
        address = _ascii_address(f"{first}.{last}.{index}@{rng.choice(_MAIL_HOSTS)}")
        favourite = rng.choice(("filter", "espresso", "moka"))
        writer.writerow([address, first, last, rng.choice(_CITIES), favourite])
    return rows.getvalue().encode()


def new_person(rng: random.Random, number: int) -> tuple[str, str]:
    """Return (first name, address) of a person who is no contact yet."""
    first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
    return first, _ascii_address(f"{first}.{last}.new{number}@{rng.choice(_MAIL_HOSTS)}")


def _ascii_address(text: str) -> str:
    return text.lower().translate(str.maketrans("éèë", "eee"))


CONTACT_COLUMNS = ("email", "first_name", "last_name", "attributes.city", "attributes.favourite")


def get_or_create_list(session: Session, actor: Actor) -> ContactList:
    """Return the contact list that the campaign is sent to; created if missing."""
    existing = session.scalar(select(ContactList).where(ContactList.name == LIST_NAME))
    return existing or create_list(session, actor, LIST_NAME)


def plan_campaign(
    session: Session, actor: Actor, today: date | None = None
) -> tuple[Campaign, dict[Channel, Activity]]:
    """Create a campaign with an activity in each of eight channels; each demo run creates another one."""
    today = today or clock.now().date()
    earlier = session.scalar(select(func.count()).where(Campaign.built_in.is_(False))) or 0
    campaign = create_campaign(
        session,
        actor,
        name="Winter tasting" if not earlier else f"Winter tasting {earlier + 1}",
        objective=Objective.LEADS,
        owner_id=actor.id,
        starts_on=today - timedelta(days=14),
        ends_on=today + timedelta(days=30),
        budget=Decimal("3500.00"),
        colour="#2fb344",
        description="Bring friends of the roastery to order a tasting box before the holidays.",
    )
    activities = {}
    for channel, title, start, end, cost, url in _ACTIVITIES:
        activities[channel] = create_activity(
            session,
            actor,
            campaign,
            channel=channel,
            title=title,
            owner_id=actor.id,
            cost=Decimal(cost),
            url=url,
            starts_on=today + timedelta(days=start),
            ends_on=today + timedelta(days=end),
        )
    return campaign, activities
