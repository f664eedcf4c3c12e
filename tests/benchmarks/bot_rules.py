"""Accuracy of the bot rules on simulated traffic with ground truth, compared with two baselines.

``python -m tests.benchmarks.bot_rules [recipients per seed] [seeds]``. Precision: share of the events labelled human
that people caused. Recall: share of people's events labelled human. Wrong: share of people's events labelled machine
or scanner ("unknown" is not wrong). Profiles that were not used for tuning the rules are listed separately. The exit
code is 1 when a limit is missed.
"""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from campaigns.demo.simulated_mailing import Mailing, MailingRecipient
from campaigns.demo.traffic_model import HELD_OUT, SHARES, Action, Mail, ReaderProfile, Request
from tracking.bots import rules, signals
from tracking.bots.gateways import gateway_of
from tracking.bots.signals import HitSignal, SendContext
from tracking.endpoints import ip_networks
from tracking.models.events import HitKind, TrafficLabel
from tracking.spool.record_codec import RequestFlag

MICRO = 1_000_000
SCANNERS = {
    ReaderProfile.GATEWAY,
    ReaderProfile.CHECKER,
    ReaderProfile.SANDBOX,
    ReaderProfile.DRIP,
    ReaderProfile.SPOOFED,
}
_KIND = {Action.OPEN: HitKind.OPEN, Action.CLICK: HitKind.CLICK, Action.VIEW: HitKind.VIEW}
_BOTS = re.compile(
    r"bot|crawl|spider|preview|externalhit|whatsapp|proxy|python|java|curl|wget|go-http|httpclient|linkcheck|headless"
    r"|^mozilla/5\.0$",
    re.IGNORECASE,
)

Judge = Callable[[MailingRecipient, Mail], Iterable[TrafficLabel]]


class Count(NamedTuple):
    human: int = 0
    """People's events labelled human."""
    unknown: int = 0
    wrong: int = 0
    false: int = 0
    """Machines' events labelled human."""
    right: int = 0
    """Machines' events labelled machine or scanner."""
    open: int = 0
    """Machines' events labelled unknown."""

    def __add__(self, other: object) -> "Count":
        assert isinstance(other, Count)
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        return self.human / ((self.human + self.false) or 1)

    @property
    def recall(self) -> float:
        return self.human / ((self.human + self.unknown + self.wrong) or 1)

    @property
    def mislabelled(self) -> float:
        return self.wrong / ((self.human + self.unknown + self.wrong) or 1)


def counted(request: Request, label: TrafficLabel) -> Count:
    if request.by_person:
        return Count(
            human=label is TrafficLabel.HUMAN,
            unknown=label is TrafficLabel.UNKNOWN,
            wrong=label > TrafficLabel.HUMAN and label < 4,
        )
    return Count(
        false=label is TrafficLabel.HUMAN,
        right=label in (TrafficLabel.MACHINE, TrafficLabel.SCANNER),
        open=label is TrafficLabel.UNKNOWN,
    )


def hits(recipient: MailingRecipient) -> Iterator[Request]:
    return (one for one in recipient.requests if one.what is not Action.SUBMIT)


def seen(recipient: MailingRecipient, request: Request) -> HitSignal:
    kind, agent = _KIND[request.what], request.agent.encode()
    flags = RequestFlag.HEAD * request.head | RequestFlag.NAVIGATED * request.navigated
    at = int((recipient.delivered + request.after) * MICRO)
    number = ip_networks.network_of(request.address, "")
    return HitSignal(at, kind, request.link, int(rules.facts(kind, flags, agent)), hash(agent), number)


class Rules:
    """The bot rules: each event is labelled by what is known at the end of its settle window."""

    def __init__(self, mailing: Iterable[MailingRecipient]) -> None:
        clicks = sorted(
            (one.network, one.at, recipient.number)
            for recipient in mailing
            for one in (seen(recipient, request) for request in hits(recipient))
            if one.kind == HitKind.CLICK
        )
        self._crowds = signals.crowds(clicks, int(rules.CROWD_SECONDS * MICRO))

    def __call__(self, recipient: MailingRecipient, mail: Mail) -> Iterator[TrafficLabel]:
        events = [seen(recipient, request) for request in hits(recipient)]
        sent_at = int(recipient.delivered * MICRO)
        submitted = [sent_at + int(one.after * MICRO) for one in recipient.requests if one.what is Action.SUBMIT]
        for event in events:
            first = rules.first_label(rules.LabelReason(event.reasons))
            if first is not TrafficLabel.SETTLING:
                yield first
                continue
            until = event.at + int(rules.SETTLE_SECONDS * MICRO)
            around = SendContext(
                sent_at,
                mail.links,
                [one for one in events if one.at <= until],
                [at for at in submitted if at <= until],
                1.0,
                mail.small_print,
            )
            crowded = event.at in self._crowds.get(event.network, ())
            yield rules.final_label(signals.signals(event, around, crowded))


def by_user_agent(recipient: MailingRecipient, _mail: Mail) -> Iterator[TrafficLabel]:
    for request in hits(recipient):
        yield TrafficLabel.SCANNER if _BOTS.search(request.agent) else TrafficLabel.HUMAN


def two_of_three(recipient: MailingRecipient, _mail: Mail) -> Iterator[TrafficLabel]:
    for request in hits(recipient):
        listed = bool(gateway_of(ip_networks.network_of(request.address, "")))
        signs = (request.after < 2) + listed + bool(_BOTS.search(request.agent))
        yield TrafficLabel.SCANNER if signs >= 2 else TrafficLabel.HUMAN


def judged(mailing: Iterable[MailingRecipient], mail: Mail, judge: Judge) -> dict[tuple[ReaderProfile, Action], Count]:
    found: dict[tuple[ReaderProfile, Action], Count] = defaultdict(Count)
    for recipient in mailing:
        for request, label in zip(hits(recipient), judge(recipient, mail), strict=True):
            found[recipient.family, request.what] += counted(request, label)
    return found


def total(found: dict[tuple[ReaderProfile, Action], Count], families: Iterable[ReaderProfile], *whats: Action) -> Count:
    return sum((found[f, w] for f in families for w in (whats or Action) if (f, w) in found), Count())


def show(name: str, count: Count) -> None:
    machines = count.false + count.right + count.open
    people = f"{count.precision:9.4f} {count.recall:7.3f} {count.mislabelled:8.4f}" if count.human else " " * 26
    caught = f"{count.right / machines:7.3f} {count.false / machines:8.4f}" if machines else ""
    sys.stdout.write(f"{name:<52}{sum(count):>9,} {people} {caught}\n")


def limits(count: Count) -> list[str]:
    missed = []
    if count.precision < 0.98:
        missed.append(f"precision {count.precision:.4f} < 0.98")
    if count.mislabelled > 0.01:
        missed.append(f"people mislabelled {count.mislabelled:.4f} > 0.01")
    return missed


def main(recipients: int, seeds: int) -> int:
    tuned = [family for family in ReaderProfile if family not in HELD_OUT]
    sums: dict[str, dict[tuple[ReaderProfile, Action], Count]] = defaultdict(lambda: defaultdict(Count))
    spent, events, each = 0.0, 0, []
    for seed in range(1, seeds + 1):
        mail = Mail(links=4 + seed % 5, small_print=frozenset({4 + seed % 5}), https=bool(seed % 4))
        shares = {**SHARES, **dict.fromkeys(HELD_OUT, 2.0)}
        mailing = list(Mailing(recipients, seed, mail, shares))
        began = time.process_time()
        rules = Rules(mailing)
        ours = judged(mailing, mail, rules)
        spent, events = spent + time.process_time() - began, events + sum(map(sum, ours.values()))
        each.append(total(ours, tuned))
        for name, found in (
            ("rules", ours),
            ("user-agent list", judged(mailing, mail, by_user_agent)),
            ("two of three", judged(mailing, mail, two_of_three)),
        ):
            for key, count in found.items():
                sums[name][key] += count
    ours = sums["rules"]
    sys.stdout.write(f"{'':<52}{'events':>9} precision  recall    wrong  caught  as human\n")
    for held_out in (False, True):
        sys.stdout.write("Held out of tuning\n" if held_out else "Rules\n")
        for family in ReaderProfile:
            if (family in HELD_OUT) == held_out:
                for what in (Action.OPEN, Action.CLICK, Action.VIEW):
                    if sum(ours[family, what]):
                        show(f"  {family}, {what}s", ours[family, what])
    for name, found in sums.items():
        show(f"{name}: tuned families", total(found, tuned))
        for what in (Action.OPEN, Action.CLICK):
            show(f"    {what}s", total(found, tuned, what))
        show("    held out", total(found, HELD_OUT))
    worst = min(each, key=lambda count: count.precision)
    sys.stdout.write(f"worst seed: precision {worst.precision:.4f}; {spent / events * 1e6:.1f} µs of CPU per event\n")
    missed = {words for count in each for words in limits(count)}
    if (clicks := total(ours, tuned, Action.CLICK)).precision < 0.98:
        missed.add(f"precision of clicks {clicks.precision:.4f} < 0.98")
    for words in sorted(missed):
        sys.stdout.write(f"MISSED: {words}\n")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in (sys.argv[1:] + ["20000", "5"][len(sys.argv) - 1 :]))))
