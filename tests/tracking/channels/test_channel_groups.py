"""Channel groups, traffic parameters and referrer classification."""

import pytest

from campaigns.planning.models import Channel
from tracking.channels.channel_groups import (
    ChannelGroup,
    TrafficParameters,
    channel_group_of,
    parse_traffic_parameters,
    social_network_of,
)
from tracking.channels.referrers import SourceKind, registered_name, source_kind


@pytest.mark.parametrize(
    ("source", "medium", "campaign", "group"),
    [
        ("", "", "", ChannelGroup.DIRECT),
        ("(direct)", "(none)", "", ChannelGroup.DIRECT),
        ("newsletter", "", "", ChannelGroup.UNASSIGNED),
        ("google", "cpc", "cross-network spring", ChannelGroup.CROSS_NETWORK),
        ("amazon", "cpc", "", ChannelGroup.PAID_SHOPPING),
        ("partner", "ppc", "spring shopping", ChannelGroup.PAID_SHOPPING),
        ("partner", "ppc", "bishop", ChannelGroup.PAID_OTHER),
        ("google", "cpc", "", ChannelGroup.PAID_SEARCH),
        ("yandex.ru", "paidsearch", "", ChannelGroup.PAID_SEARCH),
        ("facebook", "paid-social", "", ChannelGroup.PAID_SOCIAL),
        ("youtube", "cpcv", "", ChannelGroup.PAID_VIDEO),
        ("blog", "banner", "", ChannelGroup.DISPLAY),
        ("somewhere", "cpm", "", ChannelGroup.DISPLAY),
        ("somewhere", "retargeting", "", ChannelGroup.PAID_OTHER),
        ("etsy.com", "referral", "", ChannelGroup.ORGANIC_SHOPPING),
        ("l.facebook.com", "referral", "", ChannelGroup.ORGANIC_SOCIAL),
        ("anything", "sm", "", ChannelGroup.ORGANIC_SOCIAL),
        ("aparat.com", "referral", "", ChannelGroup.ORGANIC_VIDEO),
        ("anything", "a-video-post", "", ChannelGroup.ORGANIC_VIDEO),
        ("duckduckgo.com", "", "", ChannelGroup.ORGANIC_SEARCH),
        ("anything", "organic", "", ChannelGroup.ORGANIC_SEARCH),
        ("partner.example", "referral", "", ChannelGroup.REFERRAL),
        ("newsletter", "e-mail", "", ChannelGroup.EMAIL),
        ("email", "", "", ChannelGroup.EMAIL),
        ("partner", "affiliate", "", ChannelGroup.AFFILIATES),
        ("spotify", "audio", "", ChannelGroup.AUDIO),
        ("sms", "", "", ChannelGroup.SMS),
        ("app", "web-push", "", ChannelGroup.MOBILE_PUSH),
        ("firebase", "", "", ChannelGroup.MOBILE_PUSH),
        ("perplexity.ai", "referral", "", ChannelGroup.ASSISTANTS),
        ("booth", "flyer", "", ChannelGroup.UNASSIGNED),
    ],
)
def test_first_matching_rule_wins(source: str, medium: str, campaign: str, group: ChannelGroup) -> None:
    assert channel_group_of(TrafficParameters(source, medium, campaign)) is group


@pytest.mark.parametrize(
    ("query", "referrer", "arrival"),
    [
        ({}, "", TrafficParameters()),
        (
            {"utm_source": " News Letter\n", "utm_medium": "E-Mail", "gclid": "1"},
            "",
            TrafficParameters("news letter", "e-mail"),
        ),
        ({"gclid": "Cj0"}, "https://www.google.com/", TrafficParameters("google", "cpc")),
        ({"fbclid": "Iw"}, "", TrafficParameters("facebook", "social")),
        ({"msclkid": "x"}, "", TrafficParameters("bing", "cpc")),
        ({}, "https://www.google.co.uk/search?q=x", TrafficParameters("www.google.co.uk", "organic")),
        ({}, "https://t.co/abc", TrafficParameters("t.co", "social")),
        ({}, "https://partner.example/page", TrafficParameters("partner.example", "referral")),
        ({}, "https://shop.ours.example/a", TrafficParameters()),
        ({}, "android-app://com.linkedin.android/", TrafficParameters("com.linkedin.android", "social")),
        ({}, "http://[broken", TrafficParameters()),
        ({"utm_id": "7"}, "", TrafficParameters(utm_id="7")),
    ],
)
def test_utm_then_click_id_then_referrer(query: dict[str, str], referrer: str, arrival: TrafficParameters) -> None:
    assert parse_traffic_parameters(query, referrer, frozenset({"shop.ours.example"})) == arrival


def test_utm_id_alone_is_not_direct() -> None:
    assert channel_group_of(TrafficParameters(utm_id="7")) is ChannelGroup.UNASSIGNED


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("www.google.com.tr", SourceKind.SEARCH),
        ("google.ge", SourceKind.SEARCH),
        ("shopping.google.com", SourceKind.SHOP),
        ("gemini.google.com", SourceKind.ASSISTANT),
        ("notgoogle.example", None),
        ("google.evil.example", None),
        ("m.vk.com", SourceKind.SOCIAL),
        ("ok.ru", SourceKind.SOCIAL),
        ("ok.example", None),
        ("digikala.com", SourceKind.SHOP),
        ("", None),
        (".", None),
    ],
)
def test_kind_of_source(host: str, kind: SourceKind | None) -> None:
    assert source_kind(host) is kind


def test_registered_name() -> None:
    assert [registered_name(host) for host in ("www.bbc.co.uk", "google.de", "facebook", "a.b.c.example.com")] == [
        "bbc",
        "google",
        "facebook",
        "example",
    ]


def test_networks_have_one_canonical_name() -> None:
    names = [
        social_network_of(TrafficParameters(source))
        for source in ("l.facebook.com", "fb", "t.co", "youtu.be", "google", "")
    ]
    assert names == ["facebook", "facebook", "twitter", "youtube", "", ""]


def test_every_group_has_a_name_and_a_channel() -> None:
    assert len({group.label for group in ChannelGroup}) == len(ChannelGroup)
    assert ChannelGroup.PAID_SOCIAL.channel is Channel.ADS
    assert ChannelGroup.DIRECT.channel is Channel.OTHER


def test_long_values_are_truncated() -> None:
    assert len(parse_traffic_parameters({"utm_source": "x" * 5000}, "").source) == 100
