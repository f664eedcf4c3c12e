"""Settings of a process, read once from the environment and frozen.

Without any environment variables the whole installation lives in ``var/``: SQLite, an embedded broker on a
unix socket, a mail catcher, and a secret created at the first start.
"""

import base64
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

# A unix socket's path is limited to 107 bytes on Linux and 103 on macOS (sun_path in unix(7)).
_SOCKET_PATH_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting that the environment can give a process. Durations are in seconds."""

    var: Path
    database_url: str
    redis_url: str
    base_url: str
    tracking_url: str
    smtp_url: str
    catcher: bool
    """True when mail goes to the built-in mail catcher because ``SMTP_URL`` is not set."""
    secret_keys: tuple[tuple[int, bytes], ...]
    """(key id 0–255, secret). The last key signs, all keys verify."""
    time_scale: float = 1.0
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    engaged_seconds: float = 10.0
    """Seconds of activity after which a web visit counts as engaged by duration alone."""
    bounce_port: int = 0
    """Port on 127.0.0.1 where the mail server delivers bounces by SMTP or LMTP; 0 disables the listener."""
    private_relays: bool = False
    """Whether relays configured in the UI may have private network addresses. The relay of ``SMTP_URL`` always may."""

    @property
    def embedded_broker(self) -> bool:
        return self.redis_url.startswith("redis+socket://")

    @property
    def broker_socket(self) -> Path:
        return Path(urlsplit(self.redis_url).path)

    @property
    def spool(self) -> Path:
        return self.var / "spool"

    @property
    def secure(self) -> bool:
        """Whether users reach the installation by HTTPS, so that cookies can be marked ``Secure``."""
        return self.base_url.startswith("https://")


def read(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from ``environ``; creates ``var/`` and its secret when they are missing.

    Raises ValueError, naming the variable, for an invalid value.
    """
    var = Path(environ.get("KAMPANIA_VAR", "var")).resolve()
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    base_url = environ.get("BASE_URL", "http://127.0.0.1:8000").rstrip("/")
    smtp_url = environ.get("SMTP_URL", "")
    return Settings(
        var=var,
        database_url=environ.get("DATABASE_URL") or f"sqlite:///{var / 'kampania.db'}",
        redis_url=environ.get("REDIS_URL") or f"redis+socket://{_socket_path(var)}",
        base_url=base_url,
        tracking_url=environ.get("TRACKING_URL", base_url).rstrip("/"),
        smtp_url=smtp_url or f"smtp://127.0.0.1:{_parse_port('CATCHER_PORT', environ.get('CATCHER_PORT', '2525'))}",
        catcher=not smtp_url,
        secret_keys=_parse_secret_keys(environ.get("SECRET_KEYS", ""), var),
        time_scale=_parse_positive("TIME_SCALE", environ.get("TIME_SCALE", "1")),
        engaged_seconds=_parse_positive("ENGAGED_SECONDS", environ.get("ENGAGED_SECONDS", "10")),
        bounce_port=_parse_port("BOUNCE_PORT", environ["BOUNCE_PORT"]) if environ.get("BOUNCE_PORT") else 0,
        private_relays=environ.get("PRIVATE_RELAYS", "").lower() in ("1", "yes", "true", "on"),
        trusted_proxies=tuple(
            ip_network(part.strip()) for part in environ.get("TRUSTED_PROXIES", "").split(",") if part.strip()
        ),
    )


def _parse_positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e6:
        raise ValueError(f"{name} must be a number above 0, not {text!r}")
    return value


def _parse_port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"{name} must be a port number, not {text!r}")
    return int(text)


def _socket_path(var: Path) -> Path:
    path = var / "broker.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        return path
    name = hashlib.blake2b(os.fsencode(var), digest_size=6).hexdigest()
    return Path(tempfile.gettempdir()) / f"kampania-{os.getuid()}-{name}" / "broker.sock"


def _parse_secret_keys(text: str, var: Path) -> tuple[tuple[int, bytes], ...]:
    """Parse ``SECRET_KEYS="1:<base64>,2:<base64>"``; without it, load the keys of ``var/secret.json``."""
    if text:
        try:
            keys = [
                (int(kid), base64.b64decode(secret, validate=True))
                for kid, _, secret in (part.strip().partition(":") for part in text.split(","))
            ]
        except ValueError as error:
            raise ValueError("SECRET_KEYS must look like 1:<base64>,2:<base64>") from error
    else:
        keys = [(kid, base64.b64decode(secret)) for kid, secret in json.loads(_load_or_create_secret(var))]
    if any(not 0 <= kid <= 255 or len(secret) < 32 for kid, secret in keys):
        raise ValueError("SECRET_KEYS: ids are 0–255 and secrets at least 32 bytes")
    return tuple(keys)


def _load_or_create_secret(var: Path) -> str:
    path = var / "secret.json"
    if not path.exists():
        new_secret = json.dumps([[1, base64.b64encode(secrets.token_bytes(32)).decode()]])
        temporary = var / f"secret.json.{os.getpid()}"
        temporary.touch(mode=0o600)
        temporary.write_text(new_secret)
        try:
            os.link(temporary, path)  # When two processes start at once, both must use the same secret.
        except FileExistsError:
            pass
        temporary.unlink()
    return path.read_text()


installed: Settings | None = None
"""The settings of this process; None until :func:`settings` is first called."""


def settings() -> Settings:
    """The settings of this process, read at the first call."""
    global installed
    if installed is None:
        installed = read()
    return installed


def set_settings(replacement: Settings | None) -> None:
    """Replace the settings of this process (commands, tests); None makes the next call read the environment again."""
    global installed
    installed = replacement
