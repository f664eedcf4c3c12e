"""What answering a hit needs of its process, looked up once and not for every hit."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from campaigns import config
from campaigns.config import Settings
from campaigns.tokens import Purpose, keyring
from tracking.endpoints import ip_networks
from tracking.endpoints.link_targets import LinkTargetCache, destinations
from tracking.spool.writer import spool


@dataclass(frozen=True, slots=True)
class EndpointContext:
    """It serves for as long as the process keeps its settings."""

    settings: Settings
    opened: Callable[[str], int]
    """The send of an engagement token. Raises BadToken."""
    keep: Callable[[bytes], bool]
    """Puts a packed hit into the spool."""
    network: Callable[..., int]
    """The network of an address, or of who is behind it by ``X-Forwarded-For``, given second when a proxy is
    trusted."""
    proxied: bool
    known: LinkTargetCache


_desk: EndpointContext | None = None


def desk() -> EndpointContext:
    found = _desk
    return found if found is not None and found.settings is config.installed else _sit_down()


def _sit_down() -> EndpointContext:
    global _desk
    settings = config.settings()
    proxies = settings.trusted_proxies
    opened = keyring().opener(Purpose.ENGAGEMENT)
    _desk = EndpointContext(settings, opened, spool().keep, ip_networks.reader(proxies), bool(proxies), destinations())
    return _desk


def _get_up() -> None:
    global _desk
    _desk = None


os.register_at_fork(after_in_child=_get_up)  # The spool stays with the parent.
