"""Who was it: the rules against simulated traffic whose truth is known, and two baselines.

``python -m tests.bench screening [recipients per seed] [seeds]``. Precision: of the events called human,
those that were. Recall: of those by people, the ones called human. Wrong: of those by people, the ones
called machine or scanner ("unknown" claims nothing). Families that never took part in choosing the rules
stand apart. The exit code is 1 when a limit is missed.
"""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from campaigns.demo.mailing import Mailing, Recipient
from campaigns.demo.traffic import HELD_OUT, SHARES, Family, Mail, Request, What
from tracking import networks, screening, signals
from tracking.gateways import gateway_of
from tracking.models import Kind, Label
from tracking.records import Flag
from tracking.signals import Seen, Surroundings

MICRO = 1_000_000
SCANNERS = {Family.GATEWAY, Family.CHECKER, Family.SANDBOX, Family.DRIP, Family.SPOOFED}
_KIND = {What.OPEN: Kind.OPEN, What.CLICK: Kind.CLICK, What.VIEW: Kind.VIEW}
_BOTS = re.compile(
    r"bot|crawl|spider|preview|externalhit|whatsapp|proxy|python|java|curl|wget|go-http|httpclient|linkcheck|headless"
    r"|^mozilla/5\.0$", re.IGNORECASE,
)  # fmt: skip

Judge = Callable[[Recipient, Mail], Iterable[Label]]


class Count(NamedTuple):
    human: int = 0
    """By people, called human."""
    unknown: int = 0
    wrong: int = 0
    false: int = 0
    """By machines, called human."""
    right: int = 0
    """By machines, called machine or scanner."""
    open: int = 0
    """By machines, called unknown."""

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


def counted(request: Request, label: Label) -> Count:
    if request.by_person:
        return Count(
            human=label is Label.HUMAN, unknown=label is Label.UNKNOWN, wrong=label > Label.HUMAN and label < 4
        )
    return Count(false=label is Label.HUMAN, right=label in (Label.MACHINE, Label.SCANNER), open=label is Label.UNKNOWN)


def hits(recipient: Recipient) -> Iterator[Request]:
    return (one for one in recipient.requests if one.what is not What.SUBMIT)


def seen(recipient: Recipient, request: Request) -> Seen:
    kind, agent = _KIND[request.what], request.agent.encode()
    flags = Flag.HEAD * request.head | Flag.NAVIGATED * request.navigated
    at = int((recipient.delivered + request.after) * MICRO)
    number = networks.network_of(request.address, "")
    return Seen(at, kind, request.link, int(screening.facts(kind, flags, agent)), hash(agent), number)


class Rules:
    """Ours: each event is judged by what is known when its settle window closes."""

    def __init__(self, mailing: Iterable[Recipient]) -> None:
        clicks = sorted(
            (one.network, one.at, recipient.number)
            for recipient in mailing
            for one in (seen(recipient, request) for request in hits(recipient))
            if one.kind == Kind.CLICK
        )
        self._crowds = signals.crowds(clicks, int(screening.CROWD_SECONDS * MICRO))

    def __call__(self, recipient: Recipient, mail: Mail) -> Iterator[Label]:
        events = [seen(recipient, request) for request in hits(recipient)]
        sent_at = int(recipient.delivered * MICRO)
        submitted = [sent_at + int(one.after * MICRO) for one in recipient.requests if one.what is What.SUBMIT]
        for event in events:
            first = screening.first_label(screening.Reason(event.reasons))
            if first is not Label.SETTLING:
                yield first
                continue
            until = event.at + int(screening.SETTLE_SECONDS * MICRO)
            around = Surroundings(
                sent_at, mail.links, [one for one in events if one.at <= until],
                [at for at in submitted if at <= until], 1.0, mail.small_print,
            )  # fmt: skip
            crowded = event.at in self._crowds.get(event.network, ())
            yield screening.final_label(signals.signals(event, around, crowded))


def by_user_agent(recipient: Recipient, _mail: Mail) -> Iterator[Label]:
    for request in hits(recipient):
        yield Label.SCANNER if _BOTS.search(request.agent) else Label.HUMAN


def two_of_three(recipient: Recipient, _mail: Mail) -> Iterator[Label]:
    for request in hits(recipient):
        listed = bool(gateway_of(networks.network_of(request.address, "")))
        signs = (request.after < 2) + listed + bool(_BOTS.search(request.agent))
        yield Label.SCANNER if signs >= 2 else Label.HUMAN


def judged(mailing: Iterable[Recipient], mail: Mail, judge: Judge) -> dict[tuple[Family, What], Count]:
    found: dict[tuple[Family, What], Count] = defaultdict(Count)
    for recipient in mailing:
        for request, label in zip(hits(recipient), judge(recipient, mail), strict=True):
            found[recipient.family, request.what] += counted(request, label)
    return found


def total(found: dict[tuple[Family, What], Count], families: Iterable[Family], *whats: What) -> Count:
    return sum((found[f, w] for f in families for w in (whats or What) if (f, w) in found), Count())


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
    tuned = [family for family in Family if family not in HELD_OUT]
    sums: dict[str, dict[tuple[Family, What], Count]] = defaultdict(lambda: defaultdict(Count))
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
            ("rules", ours), ("user-agent list", judged(mailing, mail, by_user_agent)),
            ("two of three", judged(mailing, mail, two_of_three)),
        ):  # fmt: skip
            for key, count in found.items():
                sums[name][key] += count
    ours = sums["rules"]
    sys.stdout.write(f"{'':<52}{'events':>9} precision  recall    wrong  caught  as human\n")
    for held_out in (False, True):
        sys.stdout.write("Held out of tuning\n" if held_out else "Rules\n")
        for family in Family:
            if (family in HELD_OUT) == held_out:
                for what in (What.OPEN, What.CLICK, What.VIEW):
                    if sum(ours[family, what]):
                        show(f"  {family}, {what}s", ours[family, what])
    for name, found in sums.items():
        show(f"{name}: tuned families", total(found, tuned))
        for what in (What.OPEN, What.CLICK):
            show(f"    {what}s", total(found, tuned, what))
        show("    held out", total(found, HELD_OUT))
    worst = min(each, key=lambda count: count.precision)
    sys.stdout.write(f"worst seed: precision {worst.precision:.4f}; {spent / events * 1e6:.1f} µs of CPU per event\n")
    missed = {words for count in each for words in limits(count)}
    if (clicks := total(ours, tuned, What.CLICK)).precision < 0.98:
        missed.add(f"precision of clicks {clicks.precision:.4f} < 0.98")
    for words in sorted(missed):
        sys.stdout.write(f"MISSED: {words}\n")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(*(int(text) for text in (sys.argv[1:] + ["20000", "5"][len(sys.argv) - 1 :]))))
