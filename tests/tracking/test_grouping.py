"""Which channel brought a visit."""

import pytest

from campaigns.planning.models import Channel
from tracking.grouping import Arrival, Group, arrival_of, group_of, network_of
from tracking.sources import Site, kind_of, registered_name


@pytest.mark.parametrize(
    ("source", "medium", "campaign", "group"),
    [
        ("", "", "", Group.DIRECT),
        ("(direct)", "(none)", "", Group.DIRECT),
        ("newsletter", "", "", Group.UNASSIGNED),
        ("google", "cpc", "cross-network spring", Group.CROSS_NETWORK),
        ("amazon", "cpc", "", Group.PAID_SHOPPING),
        ("partner", "ppc", "spring shopping", Group.PAID_SHOPPING),
        ("partner", "ppc", "bishop", Group.PAID_OTHER),
        ("google", "cpc", "", Group.PAID_SEARCH),
        ("yandex.ru", "paidsearch", "", Group.PAID_SEARCH),
        ("facebook", "paid-social", "", Group.PAID_SOCIAL),
        ("youtube", "cpcv", "", Group.PAID_VIDEO),
        ("blog", "banner", "", Group.DISPLAY),
        ("somewhere", "cpm", "", Group.DISPLAY),
        ("somewhere", "retargeting", "", Group.PAID_OTHER),
        ("etsy.com", "referral", "", Group.ORGANIC_SHOPPING),
        ("l.facebook.com", "referral", "", Group.ORGANIC_SOCIAL),
        ("anything", "sm", "", Group.ORGANIC_SOCIAL),
        ("aparat.com", "referral", "", Group.ORGANIC_VIDEO),
        ("anything", "a-video-post", "", Group.ORGANIC_VIDEO),
        ("duckduckgo.com", "", "", Group.ORGANIC_SEARCH),
        ("anything", "organic", "", Group.ORGANIC_SEARCH),
        ("partner.example", "referral", "", Group.REFERRAL),
        ("newsletter", "e-mail", "", Group.EMAIL),
        ("email", "", "", Group.EMAIL),
        ("partner", "affiliate", "", Group.AFFILIATES),
        ("spotify", "audio", "", Group.AUDIO),
        ("sms", "", "", Group.SMS),
        ("app", "web-push", "", Group.MOBILE_PUSH),
        ("firebase", "", "", Group.MOBILE_PUSH),
        ("perplexity.ai", "referral", "", Group.ASSISTANTS),
        ("booth", "flyer", "", Group.UNASSIGNED),
    ],
)
def test_first_rule_that_fits(source: str, medium: str, campaign: str, group: Group) -> None:
    assert group_of(Arrival(source, medium, campaign)) is group


@pytest.mark.parametrize(
    ("query", "referrer", "arrival"),
    [
        ({}, "", Arrival()),
        ({"utm_source": " News Letter\n", "utm_medium": "E-Mail", "gclid": "1"}, "", Arrival("news letter", "e-mail")),
        ({"gclid": "Cj0"}, "https://www.google.com/", Arrival("google", "cpc")),
        ({"fbclid": "Iw"}, "", Arrival("facebook", "social")),
        ({"msclkid": "x"}, "", Arrival("bing", "cpc")),
        ({}, "https://www.google.co.uk/search?q=x", Arrival("www.google.co.uk", "organic")),
        ({}, "https://t.co/abc", Arrival("t.co", "social")),
        ({}, "https://partner.example/page", Arrival("partner.example", "referral")),
        ({}, "https://shop.ours.example/a", Arrival()),
        ({}, "android-app://com.linkedin.android/", Arrival("com.linkedin.android", "social")),
        ({}, "http://[broken", Arrival()),
        ({"utm_id": "7"}, "", Arrival(utm_id="7")),
    ],
)
def test_utm_then_click_id_then_referrer(query: dict[str, str], referrer: str, arrival: Arrival) -> None:
    assert arrival_of(query, referrer, frozenset({"shop.ours.example"})) == arrival


def test_utm_id_alone_is_not_direct() -> None:
    assert group_of(Arrival(utm_id="7")) is Group.UNASSIGNED


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("www.google.com.tr", Site.SEARCH),
        ("google.ge", Site.SEARCH),
        ("shopping.google.com", Site.SHOP),
        ("gemini.google.com", Site.ASSISTANT),
        ("notgoogle.example", None),
        ("google.evil.example", None),
        ("m.vk.com", Site.SOCIAL),
        ("ok.ru", Site.SOCIAL),
        ("ok.example", None),
        ("digikala.com", Site.SHOP),
        ("", None),
        (".", None),
    ],
)
def test_kind_of_source(host: str, kind: Site | None) -> None:
    assert kind_of(host) is kind


def test_registered_name() -> None:
    assert [registered_name(host) for host in ("www.bbc.co.uk", "google.de", "facebook", "a.b.c.example.com")] == [
        "bbc",
        "google",
        "facebook",
        "example",
    ]


def test_networks_go_by_one_name() -> None:
    names = [network_of(Arrival(source)) for source in ("l.facebook.com", "fb", "t.co", "youtu.be", "google", "")]
    assert names == ["facebook", "facebook", "twitter", "youtube", "", ""]


def test_every_group_has_a_name_and_a_channel() -> None:
    assert len({group.label for group in Group}) == len(Group)
    assert Group.PAID_SOCIAL.channel is Channel.ADS
    assert Group.DIRECT.channel is Channel.OTHER


def test_long_values_are_cut() -> None:
    assert len(arrival_of({"utm_source": "x" * 5000}, "").source) == 100
