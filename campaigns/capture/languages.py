"""The languages of landing pages: more than the house speaks, since the words are the coordinator's."""

from babel import Locale

LANGUAGES = {
    "en": "English",
    "fr": "Français",
    "ka": "ქართული",
    "az": "Azərbaycanca",
    "ru": "Русский",
    "fa": "فارسی",
}


def text_direction(language: str) -> str:
    """ "rtl" or "ltr"."""
    return str(Locale(language).text_direction) if language in LANGUAGES else "ltr"
