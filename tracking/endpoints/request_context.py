"""Per-process context of the endpoints: settings, keys and spool, looked up once instead of for every hit."""

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
    """Objects that the endpoints need for each request. Valid until the settings of the process are replaced."""

    settings: Settings
    opened: Callable[[str], int]
    """The send id of an engagement token. Raises BadToken."""
    keep: Callable[[bytes], bool]
    """Append a packed hit to the spool."""
    network: Callable[..., int]
    """The network number of REMOTE_ADDR; behind a trusted proxy of the client in ``X-Forwarded-For``, the second
    argument.
    """
    proxied: bool
    known: LinkTargetCache


_desk: EndpointContext | None = None


def desk() -> EndpointContext:
    """The context of this process; built again after the settings were replaced."""
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


os.register_at_fork(after_in_child=_get_up)  # A forked child must not write to the spool of its parent.
