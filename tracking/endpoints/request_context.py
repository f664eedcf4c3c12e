"""Per-process context of the endpoints: settings, keys and spool, looked up once instead of for every hit."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from campaigns import config
from campaigns.config import Settings
from campaigns.tokens import Purpose, keyring
from tracking.endpoints import ip_networks
from tracking.endpoints.link_targets import LinkTargetCache, link_target_cache
from tracking.spool.writer import spool_writer


@dataclass(frozen=True, slots=True)
class EndpointContext:
    """Objects that the endpoints need for each request. Valid until the settings of the process are replaced."""

    settings: Settings
    open_token: Callable[[str], int]
    """The send id of an engagement token. Raises InvalidTokenError."""
    store_record: Callable[[bytes], bool]
    """Append a packed hit to the spool."""
    resolve_network: Callable[..., int]
    """The network number of REMOTE_ADDR; behind a trusted proxy of the client in ``X-Forwarded-For``, the second
    argument.
    """
    behind_proxy: bool
    link_targets: LinkTargetCache


_context: EndpointContext | None = None


def endpoint_context() -> EndpointContext:
    """The context of this process; built again after the settings were replaced."""
    context = _context
    return context if context is not None and context.settings is config.installed else _build_context()


def _build_context() -> EndpointContext:
    global _context
    settings = config.settings()
    proxies = settings.trusted_proxies
    open_token = keyring().send_opener(Purpose.ENGAGEMENT)
    _context = EndpointContext(
        settings,
        open_token,
        spool_writer().append_record,
        ip_networks.network_resolver(proxies),
        bool(proxies),
        link_target_cache(),
    )
    return _context


def _reset_after_fork() -> None:
    global _context
    _context = None


os.register_at_fork(after_in_child=_reset_after_fork)  # A forked child must not write to the spool of its parent.
