"""Simulated mailing with all requests that follow it, in sending order."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from campaigns.demo import reader_behaviour
from campaigns.demo.traffic_model import PROFILE_SHARES, Mail, ReaderProfile, Request


@dataclass(frozen=True, slots=True)
class MailingRecipient:
    number: int
    profile: ReaderProfile
    delivered_at: float
    """Seconds since the mailing began."""
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Mailing:
    """A simulated mailing: recipients, profile shares and sending rate (mails per second)."""

    recipients: int
    seed: int
    mail: Mail
    shares: Mapping[ReaderProfile, float] = field(default_factory=lambda: PROFILE_SHARES)
    per_second: float = 40.0

    def __iter__(self) -> Iterator[MailingRecipient]:
        """Yield the recipients in sending order."""
        profiles, weights = list(self.shares), list(self.shares.values())
        for number in range(self.recipients):
            rng = random.Random(f"{self.seed}:{number}")
            profile = rng.choices(profiles, weights)[0]
            requests = reader_behaviour.simulate_requests(
                profile, rng, self.mail, shared_seed=f"{self.seed}:{number // 400}"
            )
            yield MailingRecipient(number, profile, number / self.per_second, requests)
