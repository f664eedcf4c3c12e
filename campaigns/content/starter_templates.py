"""Starter templates that ship with the application."""

from dataclasses import dataclass

from campaigns.content.mjml.compiler import EMAIL_TEMPLATES, MessageDraft
from campaigns.errors import NotFound
from campaigns.i18n import N_


@dataclass(frozen=True, slots=True)
class StarterTemplate:
    """A template for new messages; its MJML is ``templates/emails/starters/<key>.mjml``."""

    key: str
    name: str
    description: str
    subject: str
    preheader: str
    language: str = "en"

    @property
    def mjml(self) -> str:
        return (EMAIL_TEMPLATES / "starters" / f"{self.key}.mjml").read_text(encoding="utf-8")

    @property
    def draft(self) -> MessageDraft:
        return MessageDraft(self.subject, self.preheader, self.mjml, self.language)


STARTERS = (
    StarterTemplate(
        "newsletter",
        N_("Newsletter"),
        N_("A lead story, two shorter ones side by side, and dates to remember."),
        '{{ contact.first_name|default("Hello") }}, this month at {{ organisation.name }}',
        "One long read, two short ones, and three dates for your diary.",
    ),
    StarterTemplate(
        "launch",
        N_("Product launch"),
        N_("A bold opening, three reasons, one clear button."),
        "It is here: meet the new {{ organisation.name }}",
        "Three reasons to look at it today.",
    ),
    StarterTemplate(
        "invitation",
        N_("Event invitation"),
        N_("Date and place at a glance, the programme, and a place to sign up."),
        'You are invited, {{ contact.first_name|default("dear friend") }}',
        "An evening of ideas. Save your seat.",
    ),
    StarterTemplate(
        "letter",
        N_("Simple letter"),
        N_("Plain words from one person to another; reads well everywhere."),
        "A short note from {{ organisation.name }}",
        "Two minutes of reading, and one question.",
    ),
    StarterTemplate(
        "offer",
        N_("Offer"),
        N_("A discount with its code, its last day, and its conditions in plain sight."),
        '20 % for you, {{ contact.first_name|default("friend") }}, until Sunday',
        "Your code is inside.",
    ),
    StarterTemplate(
        "letter-fa",
        N_("Simple letter in Persian"),
        N_("The letter from right to left, with Persian type and digits."),
        '{{ contact.first_name|default("دوست") }} عزیز، چند خط از {{ organisation.name }}',
        "دو دقیقه خواندن و یک پرسش.",
        "fa",
    ),
)


def starter(key: str) -> StarterTemplate:
    """Return the starter template with this key. Raises NotFound."""
    for each in STARTERS:
        if each.key == key:
            return each
    raise NotFound(N_("There is no such starter."))
