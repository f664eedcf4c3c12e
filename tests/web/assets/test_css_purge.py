"""Purging of the library's stylesheet: what our pages use stays, and so does the licence."""

import pytest

from campaigns.web.assets import css_purge
from campaigns.web.assets.static_files import ROOT, _load


@pytest.mark.parametrize("name", ["vendor/tabler.min.css", "vendor/tabler.rtl.min.css"])
def test_the_purged_stylesheet_is_smaller_and_complete(name: str) -> None:
    served, whole = _load(name), (ROOT / name).read_text()
    assert served is not None
    css = served.body.decode()
    assert len(css) < len(whole) / 3
    assert "Licensed under MIT" in css
    assert css.count("{") == css.count("}")
    # The badge macro assembles bg-…-lt; the script of the dialog assembles btn-….
    for kept in (".btn-danger", ".bg-azure-lt", ".dropdown-menu.show", ".visually-hidden", "body{"):
        assert kept in whole, kept
        assert kept in css, kept
    for gone in (".carousel", ".offcanvas-backdrop", ".ribbon"):
        assert gone in whole, gone
        assert gone not in css, gone


def test_only_rules_with_an_unused_class_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(css_purge, "_source_names", lambda: (frozenset({"btn", "w-100", "show"}), (("bg-", "-lt"),)))
    css = (
        '@charset "UTF-8";/*! Theirs v1.2 (https://theirs.example) */:root{--a:1.5rem}.btn,.gone{color:red}'
        ".gone{x:y}.gone:hover,.btn .gone{x:y}.bg-red-lt{x:y}.bg-red{x:y}a:not(.gone){x:y}"
        ".btn:is(.gone,.other) a{x:y}@media (min-width:1.5em){.gone{x:y}}@media print{.gone{x:y}.btn{x:y}}"
        '.w-100::before{content:"}.gone{"}@keyframes gone{50%{opacity:.3}}@font-face{src:url(a.b)}'
    )
    assert css_purge.purge(css) == (
        '@charset "UTF-8";/*! Theirs v1.2 (https://theirs.example) */:root{--a:1.5rem}.btn{color:red}'
        ".bg-red-lt{x:y}a:not(.gone){x:y}"
        ".btn:is(.gone,.other) a{x:y}@media print{.btn{x:y}}"
        '.w-100::before{content:"}.gone{"}@keyframes gone{50%{opacity:.3}}@font-face{src:url(a.b)}'
    )
