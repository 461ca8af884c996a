"""Who may ask: bearer keys, and what a service that others can reach must have.

A key is a long random text, not a password, so one round of SHA-256 keeps it: nobody can guess what was hashed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import ConfigurationInvalid, Forbidden, Unauthorized

if TYPE_CHECKING:
    from service.settings import Settings

MIN_KEY_LENGTH = 16  # 16 random characters of base64 are 96 bits
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
MAKE_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


def digest(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def digests(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the hashes of keys, each given as itself or as ``sha256:`` and its hash.

    Raises:
        ValueError: a key is too short to be safe; it is not repeated in the message.
    """
    return tuple(_digest_of(key) for key in keys)


def _digest_of(key: str) -> str:
    if (hashed := _HASHED.fullmatch(key)) is not None:
        return f"sha256:{hashed[1]}"
    if len(key) < MIN_KEY_LENGTH or key.startswith("sha256:"):
        raise ValueError(
            f"a key needs at least {MIN_KEY_LENGTH} characters, a hash 64 hexadecimal digits after sha256:; make a key "
            f"with: {MAKE_KEY}"
        )
    return f"sha256:{digest(key)}"


@dataclass(frozen=True)
class Keys:
    """Hashes of the keys that may read, and of those that may read and write; without any, everybody may."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Keys:
        """Return the keys of the settings and of the file that they name.

        Raises:
            ConfigurationInvalid: the file cannot be read or understood.
        """
        read, write = cls._from_file(settings.keys_file)
        return cls(settings.read_keys + read, settings.write_keys + write)

    @staticmethod
    def _from_file(path: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if path is None:
            return (), ()
        found: dict[str, list[str]] = {"read": [], "write": []}
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationInvalid(f"AEROFIX_KEYS_FILE {path} cannot be read ({error}).") from error
        for number, line in enumerate(lines, 1):
            match line.split():
                case []:
                    pass
                case [comment, *_] if comment.startswith("#"):
                    pass
                case [("read" | "write") as kind, key]:
                    found[kind].append(key)
                case _:
                    raise ConfigurationInvalid(f"{path} line {number} must be `read KEY` or `write KEY`.")
        if not any(found.values()):
            raise ConfigurationInvalid(f"AEROFIX_KEYS_FILE {path} holds no key; add a line `write KEY`, or unset it.")
        try:
            return digests(found["read"]), digests(found["write"])
        except ValueError as error:
            raise ConfigurationInvalid(f"{path}: {error}") from None

    @property
    def needed(self) -> bool:
        """Whether a request needs a key."""
        return bool(self.read or self.write)

    def check(self, authorization: str, writes: bool) -> str:
        """Let a request pass, or say why it may not.

        Args:
            authorization: its header, empty if there is none.
            writes: whether it changes the gallery.

        Returns:
            The hash of its key, empty where none is needed.

        Raises:
            Unauthorized: it has no key, or one that is not known.
            Forbidden: its key only reads.
        """
        if not self.needed:
            return ""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("send a key: `Authorization: Bearer KEY`, or AEROFIX_KEY for the command line.")
        presented = f"sha256:{digest(key.strip())}"
        may_write, may_read = _among(presented, self.write), _among(presented, self.read)
        if not (may_write or may_read):
            raise Unauthorized("the key is not known here; check it, or ask who runs this.", error="invalid_token")
        if writes and not may_write:
            raise Forbidden("this key only reads; changing the gallery needs one of AEROFIX_WRITE_KEYS.", scope="write")
        return presented


def _among(presented: str, known: tuple[str, ...]) -> bool:
    """Compare with every hash, so that the time tells nothing about them."""
    return sum([hmac.compare_digest(presented, each) for each in known]) > 0


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach what listens on ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def for_listening(settings: Settings) -> Settings:
    """Return the settings with what follows from the address that they listen on.

    Raises:
        ConfigurationInvalid: others can reach it, and nothing keeps them out.
    """
    if is_loopback(settings.host):
        # a web page can make its own name point here (DNS rebinding), but not one of these
        names = dict.fromkeys((*LOOPBACK_NAMES, settings.host))
        return settings if settings.allowed_hosts else settings.model_copy(update={"allowed_hosts": tuple(names)})
    if not (Keys.of(settings).needed or settings.insecure):
        raise ConfigurationInvalid(
            f"other machines can reach {settings.host}, and without keys each of them may change the gallery. Set "
            f"AEROFIX_WRITE_KEYS (and AEROFIX_READ_KEYS) to keys made with: {MAKE_KEY}. Or say AEROFIX_INSECURE=true "
            "if something else keeps them out, or listen on 127.0.0.1."
        )
    return settings
