"""Passwords of stations: how they are made, stored and checked.

Passwords that we generate are keys of 160 bits: a keyed digest protects them as well as a slow hash would, at a
ten-thousandth of the cost, which decides how fast a pod takes 5,000 stations back. Passwords that people chose are
stored as argon2id, whose check takes about 20 ms and belongs in a thread.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type, hash_secret, verify_secret

from busbar.config import ConfigError, Env

MAX_PASSWORD_BYTES = 1024
_KEYED = "hmac-sha256"
_ARGON2ID = "$argon2id$"
_SALT_BYTES = 16


def read_pepper(env: Env) -> bytes:
    """`BUSBAR_PASSWORD_PEPPER`, which is Base64; empty if it is not set. Raises `ConfigError`."""
    try:
        return b64decode(env.text("BUSBAR_PASSWORD_PEPPER", ""), validate=True)
    except binascii.Error:
        raise ConfigError("BUSBAR_PASSWORD_PEPPER is not Base64") from None


def generate_password() -> str:
    """Forty hexadecimal digits.

    Long enough for any search, and legal both as BasicAuthPassword (OCPP 2.0.1 Part 2, 16 to 40 characters) and as
    AuthorizationKey (OCPP 1.6 security whitepaper, hexadecimal, up to 40 characters).
    """
    return secrets.token_hex(20)


def hash_password(password: bytes | str, pepper: bytes, *, generated: bool) -> str:
    """What to store for a password.

    Args:
        password: Basic passwords are bytes; text is taken as UTF-8.
        pepper: Keys the digest of generated passwords; never in the database.
        generated: Whether `generate_password` made it; otherwise it may be guessed and is hashed slowly.

    Returns:
        `hmac-sha256$<salt>$<digest>`, both Base64, or an argon2id PHC string.

    Raises:
        ValueError: An empty or over-long password, or no pepper for a generated one.
    """
    raw = password.encode() if isinstance(password, str) else password
    if not 0 < len(raw) <= MAX_PASSWORD_BYTES:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD_BYTES} bytes")
    if not generated:
        salt = secrets.token_bytes(_SALT_BYTES)
        # OWASP's second recommendation: 19 MiB, two passes.
        hashed = hash_secret(raw, salt, time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, type=Type.ID)
        return hashed.decode("ascii")
    if not pepper:
        raise ValueError("generated passwords are stored under a pepper, and there is none")
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"{_KEYED}${b64encode(salt).decode()}${b64encode(_digest(raw, salt, pepper)).decode()}"


def is_slow(stored: str) -> bool:
    """Whether checking against this takes milliseconds rather than microseconds."""
    return stored.startswith(_ARGON2ID)


def verify_password(password: bytes, stored: str, pepper: bytes) -> bool:
    """Whether the password is the one that was stored. Compares in constant time.

    What is not in one of the two known forms matches nothing.
    """
    if not 0 < len(password) <= MAX_PASSWORD_BYTES:
        return False
    if is_slow(stored):
        try:
            return verify_secret(stored.encode("ascii"), password, Type.ID)
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False
    scheme, _, rest = stored.partition("$")
    salt_text, separator, digest_text = rest.partition("$")
    if scheme != _KEYED or not separator or not pepper:
        return False
    try:
        salt, digest = b64decode(salt_text, validate=True), b64decode(digest_text, validate=True)
    except ValueError:
        return False
    return hmac.compare_digest(_digest(password, salt, pepper), digest)


def _digest(password: bytes, salt: bytes, pepper: bytes) -> bytes:
    return hmac.digest(pepper, salt + password, hashlib.sha256)
