"""Languages of landing pages. Their texts are the coordinator's, so the list is independent of the user interface's."""

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
    """Return "rtl" or "ltr"."""
    return str(Locale(language).text_direction) if language in LANGUAGES else "ltr"
