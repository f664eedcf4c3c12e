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
from campaigns.demo.traffic_model import HELD_OUT, PROFILE_SHARES, Action, Mail, ReaderProfile, Request
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
    ReaderProfile.SLOW_SCANNER,
    ReaderProfile.SPOOFED_AGENT,
}
_HIT_KINDS = {Action.OPEN: HitKind.OPEN, Action.CLICK: HitKind.CLICK, Action.VIEW: HitKind.VIEW}
_BOT_AGENT = re.compile(
    r"bot|crawl|spider|preview|externalhit|whatsapp|proxy|python|java|curl|wget|go-http|httpclient|linkcheck|headless"
    r"|^mozilla/5\.0$",
    re.IGNORECASE,
)

Labeller = Callable[[MailingRecipient, Mail], Iterable[TrafficLabel]]


class LabelCounts(NamedTuple):
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

    def __add__(self, other: object) -> "LabelCounts":
        assert isinstance(other, LabelCounts)
        return LabelCounts(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def precision(self) -> float:
        return self.human / ((self.human + self.false) or 1)

    @property
    def recall(self) -> float:
        return self.human / ((self.human + self.unknown + self.wrong) or 1)

    @property
    def mislabelled(self) -> float:
        return self.wrong / ((self.human + self.unknown + self.wrong) or 1)


def count_label(request: Request, label: TrafficLabel) -> LabelCounts:
    if request.by_person:
        return LabelCounts(
            human=label is TrafficLabel.HUMAN,
            unknown=label is TrafficLabel.UNKNOWN,
            wrong=label > TrafficLabel.HUMAN and label < 4,
        )
    return LabelCounts(
        false=label is TrafficLabel.HUMAN,
        right=label in (TrafficLabel.MACHINE, TrafficLabel.SCANNER),
        open=label is TrafficLabel.UNKNOWN,
    )


def hits(recipient: MailingRecipient) -> Iterator[Request]:
    return (one for one in recipient.requests if one.action is not Action.SUBMIT)


def signal_of(recipient: MailingRecipient, request: Request) -> HitSignal:
    kind, agent = _HIT_KINDS[request.action], request.agent.encode()
    flags = RequestFlag.HEAD * request.is_head | RequestFlag.NAVIGATED * request.user_navigated
    at = int((recipient.delivered_at + request.after) * MICRO)
    number = ip_networks.network_of(request.address, "")
    return HitSignal(at, kind, request.link, int(rules.immediate_signals(kind, flags, agent)), hash(agent), number)


class Rules:
    """The bot rules: each event is labelled by what is known at the end of its settle window."""

    def __init__(self, mailing: Iterable[MailingRecipient]) -> None:
        clicks = sorted(
            (one.network, one.at, recipient.number)
            for recipient in mailing
            for one in (signal_of(recipient, request) for request in hits(recipient))
            if one.kind == HitKind.CLICK
        )
        self._bursts = signals.find_crowds(clicks, int(rules.CROWD_SECONDS * MICRO))

    def __call__(self, recipient: MailingRecipient, mail: Mail) -> Iterator[TrafficLabel]:
        events = [signal_of(recipient, request) for request in hits(recipient)]
        sent_at = int(recipient.delivered_at * MICRO)
        submitted = [sent_at + int(one.after * MICRO) for one in recipient.requests if one.action is Action.SUBMIT]
        for event in events:
            first = rules.first_label(rules.LabelReason(event.reasons))
            if first is not TrafficLabel.SETTLING:
                yield first
                continue
            until = event.at + int(rules.SETTLE_SECONDS * MICRO)
            context = SendContext(
                sent_at,
                mail.links,
                [one for one in events if one.at <= until],
                [at for at in submitted if at <= until],
                1.0,
                mail.legal_links,
            )
            in_burst = event.at in self._bursts.get(event.network, ())
            yield rules.final_label(signals.deferred_signals(event, context, in_burst))


def by_user_agent(recipient: MailingRecipient, _mail: Mail) -> Iterator[TrafficLabel]:
    for request in hits(recipient):
        yield TrafficLabel.SCANNER if _BOT_AGENT.search(request.agent) else TrafficLabel.HUMAN


def two_of_three(recipient: MailingRecipient, _mail: Mail) -> Iterator[TrafficLabel]:
    for request in hits(recipient):
        listed = bool(gateway_of(ip_networks.network_of(request.address, "")))
        points = (request.after < 2) + listed + bool(_BOT_AGENT.search(request.agent))
        yield TrafficLabel.SCANNER if points >= 2 else TrafficLabel.HUMAN


def evaluate(
    mailing: Iterable[MailingRecipient], mail: Mail, labeller: Labeller
) -> dict[tuple[ReaderProfile, Action], LabelCounts]:
    counts: dict[tuple[ReaderProfile, Action], LabelCounts] = defaultdict(LabelCounts)
    for recipient in mailing:
        for request, label in zip(hits(recipient), labeller(recipient, mail), strict=True):
            counts[recipient.profile, request.action] += count_label(request, label)
    return counts


def total(
    counts: dict[tuple[ReaderProfile, Action], LabelCounts], profiles: Iterable[ReaderProfile], *actions: Action
) -> LabelCounts:
    return sum((counts[f, w] for f in profiles for w in (actions or Action) if (f, w) in counts), LabelCounts())


def print_counts(name: str, count: LabelCounts) -> None:
    machines = count.false + count.right + count.open
    people = f"{count.precision:9.4f} {count.recall:7.3f} {count.mislabelled:8.4f}" if count.human else " " * 26
    caught = f"{count.right / machines:7.3f} {count.false / machines:8.4f}" if machines else ""
    sys.stdout.write(f"{name:<52}{sum(count):>9,} {people} {caught}\n")


def missed_limits(count: LabelCounts) -> list[str]:
    missed = []
    if count.precision < 0.98:
        missed.append(f"precision {count.precision:.4f} < 0.98")
    if count.mislabelled > 0.01:
        missed.append(f"people mislabelled {count.mislabelled:.4f} > 0.01")
    return missed


def main(recipients: int, seeds: int) -> int:
    tuned_profiles = [family for family in ReaderProfile if family not in HELD_OUT]
    totals: dict[str, dict[tuple[ReaderProfile, Action], LabelCounts]] = defaultdict(lambda: defaultdict(LabelCounts))
    cpu_seconds, events, seed_counts = 0.0, 0, []
    for seed in range(1, seeds + 1):
        mail = Mail(links=4 + seed % 5, legal_links=frozenset({4 + seed % 5}), https=bool(seed % 4))
        shares = {**PROFILE_SHARES, **dict.fromkeys(HELD_OUT, 2.0)}
        mailing = list(Mailing(recipients, seed, mail, shares))
        began = time.process_time()
        rules = Rules(mailing)
        rule_counts = evaluate(mailing, mail, rules)
        cpu_seconds, events = cpu_seconds + time.process_time() - began, events + sum(map(sum, rule_counts.values()))
        seed_counts.append(total(rule_counts, tuned_profiles))
        for name, found in (
            ("rules", rule_counts),
            ("user-agent list", evaluate(mailing, mail, by_user_agent)),
            ("two of three", evaluate(mailing, mail, two_of_three)),
        ):
            for key, count in found.items():
                totals[name][key] += count
    rule_counts = totals["rules"]
    sys.stdout.write(f"{'':<52}{'events':>9} precision  recall    wrong  caught  as human\n")
    for held_out in (False, True):
        sys.stdout.write("Held out of tuning\n" if held_out else "Rules\n")
        for family in ReaderProfile:
            if (family in HELD_OUT) == held_out:
                for what in (Action.OPEN, Action.CLICK, Action.VIEW):
                    if sum(rule_counts[family, what]):
                        print_counts(f"  {family}, {what}s", rule_counts[family, what])
    for name, found in totals.items():
        print_counts(f"{name}: tuned families", total(found, tuned_profiles))
        for what in (Action.OPEN, Action.CLICK):
            print_counts(f"    {what}s", total(found, tuned_profiles, what))
        print_counts("    held out", total(found, HELD_OUT))
    worst = min(seed_counts, key=lambda count: count.precision)
    sys.stdout.write(
        f"worst seed: precision {worst.precision:.4f}; {cpu_seconds / events * 1e6:.1f} µs of CPU per event\n"
    )
    missed = {words for count in seed_counts for words in missed_limits(count)}
    if (clicks := total(rule_counts, tuned_profiles, Action.CLICK)).precision < 0.98:
        missed.add(f"precision of clicks {clicks.precision:.4f} < 0.98")
    for words in sorted(missed):
        sys.stdout.write(f"MISSED: {words}\n")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in (sys.argv[1:] + ["20000", "5"][len(sys.argv) - 1 :]))))
