"""Steps shared by the flows: what a coordinator does on the pages."""

import re
from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from itertools import count

from campaigns.mail_catcher.store import StoredMail
from tests.e2e.installation import RunningInstallation
from tests.e2e.visitor import VisitedPage, Visitor, eventually

PASSWORD = "a long enough password"
OWNER = "nino@kettle.example"
_numbers = count(1)

MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-text>Dear {{{{ contact.first_name }}}} of {{{{ contact.city }}}}, read
<a href="https://kettle.example/blog">the blog</a>.</mj-text>
<mj-button href="{landing}">Ask for a box</mj-button>
</mj-column></mj-section></mj-body></mjml>"""


def sign_in_owner(installation: RunningInstallation) -> Visitor:
    """Run the first-run setup, or sign in if it is done; return the signed-in visitor."""
    visitor = Visitor(installation.base)
    page = visitor.get("/")
    if page.url.endswith("/setup"):
        page = visitor.submit(
            page.form("/setup"),
            name="Kettle & Pine",
            sender_email="hello@kettle.example",
            owner_name="Nino",
            owner_email=OWNER,
            owner_password=PASSWORD,
        )
    else:
        page = visitor.submit(page.form("/sign-in"), email=OWNER, password=PASSWORD)
    assert page.url == f"{installation.base}/today", page.text
    return visitor


@dataclass
class CampaignPlan:
    """URLs and data of a campaign with an e-mail activity and a landing page, ready to launch."""

    campaign: str
    email: str
    message: str
    landing: str
    list_name: str
    people: list[str]


def import_contacts(visitor: Visitor, count: int = 3) -> tuple[str, list[str], VisitedPage]:
    """Import a CSV file with one invalid row into a new list; return (list name, addresses, page of the import)."""
    name = f"Friends {next(_numbers)}"
    people = [f"{name}.{index}@inbox.example.net".replace(" ", "").lower() for index in range(count)]
    rows = "".join(f"{address},Ana{index},Batumi\n" for index, address in enumerate(people))
    sheet = f"E-mail,First name,City\n{rows}not an address,Nobody,Nowhere\n".encode()
    mapping = visitor.submit(visitor.get("/imports/new").form("/imports/new"), file=("file", "friends.csv", sheet))
    page = visitor.submit(
        mapping.form("/mapping"),
        new_list=name,
        email_consent="full",
        tracking_consent="full",
        consent_source="cards beside the till",
        consent_wording="Yes, write to me",
    )
    address = page.url

    def checked() -> VisitedPage | None:
        page = visitor.get(address)
        return page if "/start" in page.html else None

    visitor.submit(eventually(checked).form("/start"))
    page = eventually(lambda: _if_contains(visitor.get(address), "rejected.csv"))
    return name, people, page


def _if_contains(page: VisitedPage, text: str) -> VisitedPage | None:
    return page if text in page.html else None


def create_plan(visitor: Visitor, people: int = 3) -> CampaignPlan:
    """Create a campaign, activities, a list, a landing page and a message on their pages."""
    list_name, addresses, _ = import_contacts(visitor, people)
    name = f"Winter tasting {next(_numbers)}"
    campaign = visitor.submit(
        visitor.get("/campaigns/new").form("/new"),
        name=name,
        objective="leads",
        starts_on="2026-11-01",
        ends_on="2026-12-24",
        budget="1500",
        colour="#2fb344",
    ).url
    web = visitor.submit(
        visitor.get(f"{campaign}/activities/new?channel=web").form("/new"), title="Landing page", cost="120"
    ).url
    form = visitor.get(f"{web}/form").form("/form")
    slug = f"box-{next(_numbers)}"
    visitor.submit(form, title="A tasting box", slug=slug, consent_wording="Yes, write to me")
    landing = f"{visitor.base}/f/{slug}"
    message = visitor.submit(visitor.get("/messages/new").form("/messages/new", having="starter")).url
    visitor.submit(
        visitor.get(message).form(message.removeprefix(visitor.base), having="mjml"),
        name=name,
        subject="{{ contact.first_name }}, your box",
        preheader="Plum and cedar",
        mjml=MJML.format(landing=landing),
    )
    email = visitor.submit(
        visitor.get(f"{campaign}/activities/new?channel=email").form("/new"),
        title="Invitation",
        cost="180",
        message_id=name,
        list_id=list_name,
    ).url
    return CampaignPlan(campaign, email, message, landing, list_name, addresses)


def add_mailing(visitor: Visitor, plan: CampaignPlan, title: str) -> CampaignPlan:
    """Create another e-mail activity with the same message and list."""
    form = visitor.get(f"{plan.campaign}/activities/new?channel=email").form("/new")
    message_id = plan.message.rsplit("/", 1)[1]
    return replace(plan, email=visitor.submit(form, title=title, message_id=message_id, list_id=plan.list_name).url)


def run_preflight(visitor: Visitor, plan: CampaignPlan) -> VisitedPage:
    """Run the preflight and return the page with its result."""
    page = visitor.get(f"{plan.email}/preflight")
    visitor.submit(page.form("/preflight"))
    return visitor.get(f"{plan.email}/preflight")


def launch(visitor: Visitor, plan: CampaignPlan) -> VisitedPage:
    return visitor.submit(visitor.get(plan.email).form("/launch"))


@dataclass(frozen=True)
class ReceivedMail:
    """A mail as its recipient sees it."""

    message: EmailMessage
    html: str

    @property
    def pixel_url(self) -> str:
        return self._urls(r'src="([^"]+/o/[^"]+)"')[0]

    @property
    def links(self) -> list[str]:
        return self._urls(r'href="([^"]+/c/[^"]+)"')

    @property
    def unsubscribe_url(self) -> str:
        return self._urls(r'href="([^"]+/u/[^"]+)"')[0]

    def _urls(self, pattern: str) -> list[str]:
        return [unescape(url) for url in re.findall(pattern, self.html)]


def parse_mail(stored: StoredMail) -> ReceivedMail:
    message = message_from_bytes(stored.raw, _class=EmailMessage, policy=policy.default)
    body = message.get_body(("html",))
    assert body is not None
    return ReceivedMail(message, body.get_content())


def performance_text(visitor: Visitor, plan: CampaignPlan) -> str:
    """Return the text of the performance page's refreshed fragment."""
    return visitor.get(f"{plan.campaign}/performance/figures").text
