"""Classification of traffic sources: search engines, social networks, video sites, shops and AI assistants.

A list of our own, compiled on :data:`AS_OF` from the public domains of each site. A source is matched by its registered
name, regardless of country domain and subdomain (``news.google.co.uk`` is ``google``).
"""

from datetime import date
from enum import StrEnum

AS_OF = date(2026, 11, 22)


class SourceKind(StrEnum):
    """Kind of a traffic source."""

    SEARCH = "search"
    SOCIAL = "social"
    VIDEO = "video"
    SHOP = "shop"
    ASSISTANT = "assistant"


_NAMES = {
    SourceKind.SEARCH: "google bing yahoo duckduckgo yandex ya baidu ecosia qwant startpage brave sogou naver seznam "
    "ask aol mojeek kagi petal presearch swisscows gibiru rambler mail.ru zarebin parsijoo so.com daum lycos "
    "dogpile metager searx search.ge",
    SourceKind.SOCIAL: "facebook fb instagram ig linkedin lnkd twitter x.com t.co x pinterest reddit tiktok threads "
    "mastodon bsky bluesky vk vkontakte ok.ru odnoklassniki whatsapp wa.me telegram t.me snapchat discord quora "
    "tumblr weibo wechat line.me viber xing medium disqus ycombinator meetup eitaa rubika soroush "
    "lemmy messenger",
    SourceKind.VIDEO: "youtube youtu.be vimeo dailymotion twitch aparat rutube wistia netflix hulu bilibili youku "
    "ted iqiyi kick",
    SourceKind.SHOP: "amazon ebay etsy alibaba aliexpress walmart shopify mercadolibre rakuten wildberries ozon "
    "digikala zalando allegro cdiscount fnac temu shein mymarket.ge",
    SourceKind.ASSISTANT: "chatgpt openai perplexity claude.ai gemini copilot deepseek mistral you.com phind meta.ai "
    "grok",
}
_KIND_BY_HOST = {
    # Products of a search engine or network whose kind differs from that of the registered name.
    "shopping.google.com": SourceKind.SHOP,
    "gemini.google.com": SourceKind.ASSISTANT,
    "copilot.microsoft.com": SourceKind.ASSISTANT,
    "chat.openai.com": SourceKind.ASSISTANT,
    "marketplace.facebook.com": SourceKind.SHOP,
}
_KIND_BY_NAME = {name: site for site, names in _NAMES.items() for name in names.split()}
_PREFIXES = ("www.", "m.", "l.", "lm.", "old.", "web.", "out.", "mobile.", "amp.", "com.")
_SECOND_LEVEL = {"co", "com", "net", "org", "ac", "gov", "edu"}


def source_kind(source: str) -> SourceKind | None:
    """The kind of ``source``, a ``utm_source`` value or a host; None when it is not listed."""
    source = source.lower().strip(".")
    if source in _KIND_BY_HOST:
        return _KIND_BY_HOST[source]
    name, host = registered_name(source), _strip_prefix(source)
    for candidate in (source, host, ".".join(host.split(".")[-2:]), name):
        if candidate in _KIND_BY_NAME:
            return _KIND_BY_NAME[candidate]
    return None


def registered_name(host: str) -> str:
    """The registered name of a host: ``google`` for ``www.google.co.uk``."""
    labels = _strip_prefix(host.lower()).split(".")
    if len(labels) < 2:
        return labels[0]
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return labels[-3]
    return labels[-2]


def _strip_prefix(host: str) -> str:
    for prefix in _PREFIXES:
        if host.startswith(prefix) and host.count(".") > 1:
            return host.removeprefix(prefix)
    return host
