"""Marker for translatable messages in code that knows neither Flask nor the reader's language.

Domain code marks its messages with :func:`N_`, so that extraction puts them into the catalogs. The web layer
translates them when it shows them.
"""


def N_(msgid: str) -> str:
    """Return ``msgid`` unchanged; the translation catalogue collects it."""
    return msgid
