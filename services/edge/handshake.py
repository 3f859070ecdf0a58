"""The opening handshake, without I/O: who asks to come in, with what, and why not.

Spec: OCPP-J 1.6 §3 and the security whitepaper, OCPP 2.0.1 Part 4 §3 and Part 2 A00.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request

from busbar.ocpp.versions import SUBPROTOCOLS, Version

MAX_STATION_ID = 48
"""OCPP 2.x: identifierString[48]."""
MAX_STATION_ID_16 = 128
"""OCPP 1.6 sets no limit."""
_REALM = 'Basic realm="ocpp", charset="UTF-8"'


class Refusal(Exception):  # noqa: N818 - it is an answer, as much as an error
    """The HTTP answer to a handshake that does not succeed.

    Args:
        outcome: A short stable word for metrics.
        text: The body: what is wrong, for the person who installs the station.
        retry: Whether to send Retry-After.
    """

    def __init__(self, status: int, outcome: str, text: str, *, retry: bool = False) -> None:
        super().__init__(f"{status} {outcome}")
        self.status = status
        self.outcome = outcome
        self.text = text
        self.retry = retry

    @property
    def headers(self) -> dict[str, str]:
        """What the status calls for besides the body."""
        return {"WWW-Authenticate": _REALM} if self.status == 401 else {}


@dataclass(frozen=True, slots=True)
class StationSettings:
    """A row of `config.stations`, as far as the edge needs it."""

    station_id: str
    password_hash: str | None = None
    security_profile: int = 1
    """The least that it may connect with."""
    version: Version | None = None
    """Pin: only this version is negotiated."""
    max_frame_bytes: int | None = None
    ping_interval_seconds: int | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Visitor:
    """A station that asks to come in."""

    station_id: str
    offers: tuple[str, ...]
    """The subprotocols that both sides know, ours most preferred first."""
    passwords: tuple[bytes, ...]
    """What to check, in order; empty if none was given."""
    address: str
    """Of the peer."""
    tls: bool
    """Whether the connection is encrypted, here or at a trusted proxy."""


def read_visitor(request: Request, *, path_prefix: str, address: str, tls: bool) -> Visitor:
    """Read a handshake request. Raises `Refusal`."""
    station_id = read_station_id(request.path, path_prefix)
    offers = read_offers(request.headers)
    if len(station_id) > MAX_STATION_ID and any(SUBPROTOCOLS[offer].is_v2 for offer in offers):
        raise Refusal(400, "bad_identity", f"a station identity has at most {MAX_STATION_ID} characters in OCPP 2.x")
    return Visitor(station_id, offers, read_passwords(request.headers, station_id), address, tls)


def read_station_id(path: str, prefix: str) -> str:
    """The station's identity: the last segment of the path, percent-decoded. Raises `Refusal`."""
    path = path.partition("?")[0]
    folder, _, segment = path.rpartition("/")
    if not segment and folder != prefix:  # a slash behind the identity does no harm
        folder, _, segment = folder.rpartition("/")
    if (folder != prefix and prefix != "*") or not path.startswith("/"):
        shown = "" if prefix == "*" else prefix
        raise Refusal(404, "bad_path", f"stations connect at {shown}/{{station identity}}")
    try:
        station_id = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Refusal(400, "bad_identity", "the station identity in the path is not UTF-8") from None
    if not station_id:
        raise Refusal(400, "bad_identity", "the path ends without a station identity")
    if len(station_id) > MAX_STATION_ID_16:
        raise Refusal(400, "bad_identity", f"a station identity has at most {MAX_STATION_ID_16} characters")
    if not station_id.isprintable() or station_id != station_id.strip():
        raise Refusal(400, "bad_identity", "a station identity has printable characters only, and none around it")
    return station_id


def read_offers(headers: Headers) -> tuple[str, ...]:
    """The subprotocols offered that we know, in our order. Raises `Refusal` if there is none."""
    offered = {
        offer.strip().lower() for value in headers.get_all("Sec-WebSocket-Protocol") for offer in value.split(",")
    }
    offers = tuple(name for name in SUBPROTOCOLS if name in offered)
    if not offers:
        raise Refusal(
            400,
            "no_subprotocol",
            f"no subprotocol in common: we speak {', '.join(SUBPROTOCOLS)};"
            f" the station offered {', '.join(sorted(offered))[:200] or 'none'}",
        )
    return offers


def read_passwords(headers: Headers, station_id: str) -> tuple[bytes, ...]:
    """What stands behind the station's identity in the Authorization header; empty without such a header.

    A Basic password is bytes. A 1.6 station may hold its hexadecimal AuthorizationKey as the bytes that it stands
    for and send those (security whitepaper §3.3.2), so their digits are what to compare as well.

    Raises:
        Refusal: The header is there and unusable.
    """
    try:
        header = headers.get("Authorization")
    except MultipleValuesError:
        raise Refusal(400, "bad_authorization", "more than one Authorization header") from None
    if header is None:
        return ()
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refusal(401, "bad_authorization", "the Authorization header is not Basic")
    try:
        credentials = b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(401, "bad_authorization", "the Basic credentials are not Base64") from None
    # An identity may itself have a colon in it.
    name = station_id.encode() + b":"
    if not credentials.startswith(name):
        raise Refusal(401, "bad_username", "the Basic user name is not the station identity of the path")
    password = credentials[len(name) :]
    if not password:
        return ()
    if all(0x20 <= byte < 0x7F for byte in password):
        return (password,)
    return password, password.hex().encode(), password.hex().upper().encode()


def choose_subprotocol(visitor: Visitor, settings: StationSettings) -> str:
    """The subprotocol of the connection. Raises `Refusal`."""
    for offer in visitor.offers:
        if settings.version in (None, SUBPROTOCOLS[offer]):
            return offer
    raise Refusal(
        400,
        "no_subprotocol",
        f"this station is pinned to OCPP {settings.version}; it offered {', '.join(visitor.offers)}",
    )


def check_profile(visitor: Visitor, settings: StationSettings, *, allow_unsecured: bool) -> None:
    """Refuse a connection that is less secure than the station's profile. Raises `Refusal`.

    Profile 1 asks for a password, 2 for TLS as well, 3 for a client certificate.
    """
    if not settings.enabled:
        raise Refusal(403, "disabled", "this station is disabled")
    if settings.security_profile >= 3:
        raise Refusal(401, "no_certificate", "this station must present a client certificate (security profile 3)")
    if settings.security_profile == 2 and not visitor.tls:
        raise Refusal(401, "no_tls", "this station must connect with TLS (security profile 2)")
    if settings.security_profile == 0:
        if not allow_unsecured:
            raise Refusal(401, "unsecured", "connections without a password are switched off (security profile 0)")
        if settings.password_hash is None:
            return
    if settings.password_hash is None:
        raise Refusal(401, "no_password_set", "no password is set for this station: set one first")
    if not visitor.passwords:
        raise Refusal(401, "no_credentials", "this station must send Basic credentials")


def wrong_password() -> Refusal:
    """The same answer whatever was wrong with it."""
    return Refusal(401, "bad_password", "wrong password")


def unknown_station() -> Refusal:
    """Not in the configuration."""
    return Refusal(404, "unknown_station", "this station is not registered here")


def busy(outcome: str, text: str) -> Refusal:
    """Not now: HTTP 503 with Retry-After."""
    return Refusal(503, outcome, text, retry=True)


def security_profile(visitor: Visitor, settings: StationSettings) -> int:
    """Of the connection as it was made: what `csms.connections` tells."""
    if settings.password_hash is None:
        return 0
    return 2 if visitor.tls else 1
