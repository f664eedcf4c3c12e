"""MJML schema: permitted elements, their parents, and refused attributes."""

from campaigns.i18n import N_


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONTENT_PARENTS = _names("mj-column mj-hero")

PARENTS: dict[str, frozenset[str]] = {
    "mjml": frozenset(),
    **dict.fromkeys(_names("mj-head mj-body"), _names("mjml")),
    **dict.fromkeys(_names("mj-attributes mj-title mj-preview mj-style mj-font mj-breakpoint"), _names("mj-head")),
    **dict.fromkeys(_names("mj-all mj-class"), _names("mj-attributes")),
    "mj-wrapper": _names("mj-body"),
    **dict.fromkeys(_names("mj-section mj-hero"), _names("mj-body mj-wrapper")),
    "mj-group": _names("mj-section"),
    "mj-column": _names("mj-section mj-group"),
    **dict.fromkeys(_names("mj-text mj-button mj-image mj-divider mj-spacer mj-table mj-social"), _CONTENT_PARENTS),
    **dict.fromkeys(_names("mj-navbar mj-accordion mj-carousel"), _CONTENT_PARENTS),
    "mj-raw": _names("mj-head mj-body mj-wrapper mj-section mj-group mj-column mj-hero"),
    "mj-social-element": _names("mj-social"),
    "mj-navbar-link": _names("mj-navbar"),
    "mj-accordion-element": _names("mj-accordion"),
    **dict.fromkeys(_names("mj-accordion-title mj-accordion-text"), _names("mj-accordion-element")),
    "mj-carousel-image": _names("mj-carousel"),
}

CONTAINERS = _names(
    "mjml mj-head mj-attributes mj-body mj-wrapper mj-section mj-group mj-column mj-hero mj-social mj-navbar "
    "mj-accordion mj-accordion-element mj-carousel mj-image mj-divider mj-spacer mj-carousel-image mj-font "
    "mj-breakpoint mj-all mj-class"
)
"""Elements that contain only elements or nothing, never text."""

TEXT_ONLY = _names("mj-title mj-preview mj-style")
"""Elements that contain only text."""

HEAD_ELEMENTS = _names("mj-attributes mj-title mj-preview mj-style mj-font mj-breakpoint")

TABLE_PARTS = _names("table thead tbody tfoot tr colgroup")

HTML_ELEMENTS = _names(
    "a abbr address b bdi bdo big blockquote br caption center cite code col colgroup dd del dfn div dl dt em "
    "figcaption figure font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark meta ol p pre q s samp small span strike "
    "strong sub sup table tbody td tfoot th thead time tr tt u ul var wbr"
)

REFUSED_ATTRIBUTES = _names("action formaction srcdoc ping http-equiv xlink:href srcset contenteditable")

REMOTE_DEFAULTS = {
    "mj-social-element": _names("src"),
    "mj-carousel": _names("left-icon right-icon"),
    "mj-accordion": _names("icon-wrapped-url icon-unwrapped-url"),
}
"""Elements that load images from MJML's servers unless one of these attributes is given."""

_REFUSED_ELEMENTS = _names(
    "script iframe frame frameset object embed applet form input button select textarea link base svg math audio "
    "video source template noscript title head body html"
)


def refusal_reason(name: str) -> str | None:
    """Return why the element ``name`` is refused everywhere; None when it may be permitted."""
    if name == "mj-include":
        return N_("Includes are not possible; write everything into one message.")
    if name == "mj-html-attributes":
        return N_("<mj-html-attributes> is not possible.")
    if name == "style":
        return N_("Write style sheets into <mj-style> in <mj-head>.")
    if name in _REFUSED_ELEMENTS:
        return N_("<%(name)s> is not possible in a mail.")
    return None
