"""Avro for the two topics that get a record for every event of every session, in straight lines.

What `busbar.avro.encode` does for any schema takes a third of a worker's time here. The bytes are the same: most of a
record repeats from one event of a session to the next, and is remembered.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

from busbar.avro.codec import header_of, newest
from busbar.avro.primitives import (
    INSTANTS,
    PRESENT_VARINTS,
    VARINTS,
    dump_json,
    encode_long,
    encode_text,
    remember_instant,
)
from services.sessions.continuity import Change
from services.sessions.flags import flag_names
from services.sessions.model import FINAL_STATES, Cause, Point, Session
from services.sessions.samples import Samples, Shape
from services.sessions.signed import SignedReading
from services.sessions.units import in_units

_MEMO_LIMIT = 16_384
_NULL = b"\x00"
_FALSE = b"\x00"
_TRUE = b"\x01"
_INSTANT = 6
"""Bytes that an instant of our time takes."""
_NO_POINT: Point = (0, None, None, None)

_present_double = struct.Struct("<Bd").pack
_words: dict[str, bytes] = {}
_prefixes: dict[tuple[Any, ...], bytes] = {}
_places: dict[tuple[Any, ...], bytes] = {}


@cache
def _header(name: str) -> bytes:
    return header_of(newest(name))


def encode_session_event(
    session: Session, kind: str, cause: Cause, gap: Change | None = None, event_id: str | None = None
) -> bytes:
    """A `csms.SessionEvent`: what happened to a session, and its state afterwards.

    Args:
        gap: Of an event about unattributed energy: that energy, and the registers that it lies between.
        event_id: If it is not that of the session's next event.
    """
    energy, moment, points, state = session.energy, cause.moment, cause.points, session.state
    total, rung = energy.total_uwh, energy.rung
    register_begin, register_end = energy.register_begin_uwh, energy.register_end_uwh
    if gap is not None:
        total, register_begin, register_end = gap
        rung = "samples"
    sequence, at_ms, station_ms = session.sequence, moment.at_ms, moment.station_ms
    at = INSTANTS.get(at_ms) or _instant(at_ms)
    at_present = b"\x02" + at
    last = points[-1] if points else _NO_POINT
    end, power, current = _optional_decimal(register_end), _optional_double(last[2]), _optional_double(last[3])
    parts = [
        session.prefix or _prefix(session),
        _text(f"{session.session_id}/{sequence}" if event_id is None else event_id),
        VARINTS[sequence] if sequence < 8192 else encode_long(sequence),
        _word(kind),
        _word(state if session.session_id else ""),
        _TRUE if state in FINAL_STATES else _FALSE,
        _TRUE if session.is_complete else _FALSE,
        _TRUE if cause.offline else _FALSE,
        at,
        at_present if station_ms == at_ms else _optional_instant(station_ms),
        INSTANTS.get(moment.received_ms) or _instant(moment.received_ms),
        _optional_instant(session.started_ms),
        _optional_instant(session.ended_ms),
        _word(cause.trigger),
        _optional_long(cause.seq_no),
        _word(cause.charging_state),
        _decimal(total),
        _word(rung),
        _optional_decimal(register_begin),
        end,
        power,
        current,
        _optional_double(cause.soc_micro),
    ]
    if points:
        parts.append(_count(points))
        for point_ms, register, point_power, point_current in points:  # most often one, which has been encoded above
            parts.append(at if point_ms == at_ms else INSTANTS.get(point_ms) or _instant(point_ms))
            parts.append(end if register == register_end else _optional_decimal(register))
            parts.append(power if point_power == last[2] else _optional_double(point_power))
            parts.append(current if point_current == last[3] else _optional_double(point_current))
    has_more = session.stop_reason or session.stop_id_token or session.flags or session.station_tariff_id
    is_changed = session.tariff_changes or session.reserved_ms is not None
    if has_more or len(session.seq_ranges) > 1 or cause.signed or cause.cost_details or is_changed:
        parts += _rest(session, cause)
    else:
        parts.append(_NOTHING_MORE)
    return b"".join(parts)


_NOTHING_MORE = b"\x00" * 11
"""The end of the points, then every field behind them, empty."""


def _rest(session: Session, cause: Cause) -> list[bytes]:
    """The end of the points, and the fields behind them: most are empty in most events."""
    parts = [_NULL, _word(session.stop_reason), _text(session.stop_id_token)]
    missing = session.missing() if len(session.seq_ranges) > 1 else ()
    if missing:
        parts.append(_count(missing))
        for first, last in missing:
            parts += (encode_long(first), encode_long(last))
    parts.append(_NULL)
    if session.flags:
        flags = flag_names(session.flags)
        parts.append(_count(flags))
        parts += map(_word, flags)
    parts.append(_NULL)
    if cause.signed:
        parts.append(_count(cause.signed))
        parts += map(_signed, cause.signed)
    cost_details = dump_json(cause.cost_details) if cause.cost_details else b""
    parts += (_NULL, _text(session.station_tariff_id), encode_long(len(cost_details)), cost_details)
    if session.tariff_changes:
        parts.append(_count(session.tariff_changes))
        for at_ms, tariff_id, version in session.tariff_changes:
            parts += (encode_long(at_ms), _text(tariff_id), encode_long(version))
    parts += (_NULL, _optional_instant(session.reserved_ms), _NULL)
    return parts


def encode_meter_samples(
    place: tuple[Any, ...],
    event_id: str,
    action: str,
    seq_no: int | None,
    received_ms: int,
    samples: Samples,
    shift_ms: int,
) -> bytes:
    """A `csms.MeterSamples`.

    Args:
        place: Its first fields up to `transaction_id`, which seldom change.
        shift_ms: What is added to the station's times.
    """
    parts = [
        _places.get(place) or _place(place),
        _text(event_id),
        _word(action),
        _optional_long(seq_no),
        INSTANTS.get(received_ms) or _instant(received_ms),
    ]
    values, station_ms = samples.values, samples.times[0]
    layout: _Layout = samples.shape.layout or _layout(samples.shape)
    if layout.pack is not None and len(samples.times) == 1 and station_ms is not None and not samples.unreadable:
        at_ms = station_ms + shift_ms
        at = INSTANTS.get(at_ms) or _instant(at_ms)
        if len(at) == _INSTANT:
            arguments, at = layout.arguments.copy(), at + b"\x02"
            for index, value in enumerate(values):
                assert value is not None  # or the samples were unreadable
                arguments[3 * index + 1] = at
                arguments[3 * index + 2] = in_units(value)
            parts.append(layout.pack(*arguments))
            return b"".join(parts)
    if layout.told:
        times = sample_times(samples, received_ms, shift_ms)
        parts.append(_count(layout.told))
        for index in layout.told:
            value = values[index]
            parts += (layout.kinds[index], encode_long(times[index]), _optional_double(value))
    parts.append(_NULL)
    return b"".join(parts)


def sample_times(samples: Samples, received_ms: int, shift_ms: int) -> list[int]:
    """The time we go by of each sample."""
    times: list[int] = []
    for at, count in zip(samples.times, samples.counts, strict=True):
        times += [received_ms if at is None else at + shift_ms] * count
    return times


class _Layout:
    """How the samples of a shape are written: those that are no signed data."""

    def __init__(self, shape: Shape) -> None:
        self.kinds = [
            b"".join(map(encode_text, (kind.measurand, kind.phase, kind.location, kind.context, kind.unit)))
            for kind in shape.kinds
        ]
        self.told = [index for index, kind in enumerate(shape.kinds) if not kind.signed]
        self.pack: Any = None
        """Writes all samples at once, where none is signed and all have one time of six bytes."""
        self.arguments: list[Any] = []
        if len(self.told) == len(shape.kinds) < 64:
            count = _count(self.told)
            for index, kind in enumerate(self.kinds):
                self.arguments += [kind if index else count + kind, b"", 0.0]
            sizes = "".join(f"{len(kind)}s{_INSTANT + 1}sd" for kind in self.arguments[::3])
            self.pack = struct.Struct(f"<{sizes}x").pack


def _layout(shape: Shape) -> _Layout:
    shape.layout = layout = _Layout(shape)
    return layout


def _prefix(session: Session) -> bytes:
    """What all events of a session begin with: the schema, and the fields that seldom change."""
    key = (
        session.session_id,
        session.station_id,
        session.version,
        session.transaction_id,
        session.site_id,
        session.evse_id,
        session.connector_id,
        session.id_token,
        session.id_token_type,
        session.group_id,
        session.authorization_status,
        session.reservation_id,
        session.remote_start_id,
        session.price_tariff_id,
        session.price_tariff_version,
        session.price_time_zone,
    )
    raw = _prefixes.get(key)
    if raw is None:
        raw = b"".join(
            (
                _header("csms.SessionEvent"),
                *map(encode_text, key[:5]),
                encode_long(session.evse_id),
                encode_long(session.connector_id),
                *map(encode_text, key[7:11]),
                _optional_long(session.reservation_id),
                _optional_long(session.remote_start_id),
                encode_text(session.price_tariff_id),
                encode_long(session.price_tariff_version),
                encode_text(session.price_time_zone),
            )
        )
        _keep(_prefixes, key, raw)
    session.prefix = raw
    return raw


def _place(fields: tuple[Any, ...]) -> bytes:
    station_id, site_id, evse_id, connector_id, session_id, transaction_id = fields
    raw = b"".join(
        (
            _header("csms.MeterSamples"),
            encode_text(station_id),
            encode_text(site_id),
            encode_long(evse_id),
            encode_long(connector_id),
            encode_text(session_id),
            encode_text(transaction_id),
        )
    )
    return _keep(_places, fields, raw)


def _keep(memo: dict[tuple[Any, ...], bytes], key: tuple[Any, ...], raw: bytes) -> bytes:
    if len(memo) >= _MEMO_LIMIT:
        memo.clear()
    memo[key] = raw
    return raw


def _word(text: str) -> bytes:
    """A string that comes again and again."""
    encoded = _words.get(text)
    if encoded is None:
        encoded = _text(text)
        if len(encoded) < 64:
            if len(_words) >= _MEMO_LIMIT:
                _words.clear()
            _words[text] = encoded
    return encoded


def _text(text: str) -> bytes:
    raw = text.encode()
    size = len(raw)
    return (VARINTS[size] if size < 8192 else encode_long(size)) + raw


def _instant(value: int) -> bytes:
    """An instant that is not remembered."""
    return remember_instant(value, encode_long(value))


def _optional_instant(value: int | None) -> bytes:
    return _NULL if value is None else b"\x02" + (INSTANTS.get(value) or _instant(value))


def _optional_long(value: int | None) -> bytes:
    if value is None:
        return _NULL
    return PRESENT_VARINTS[value] if 0 <= value < 1024 else b"\x02" + encode_long(value)


def _optional_double(micro: int | None) -> bytes:
    return _NULL if micro is None else _present_double(2, in_units(micro))


def _optional_decimal(micro: int | None) -> bytes:
    return _NULL if micro is None else b"\x02" + _decimal(micro)


def _decimal(micro: int) -> bytes:
    """A decimal with six decimal places: the number of millionths in two's complement, with its length."""
    size = (micro if micro >= 0 else ~micro).bit_length() // 8 + 1
    return VARINTS[size] + micro.to_bytes(size, "big", signed=True)


def _count(items: Sequence[Any]) -> bytes:
    """The head of a block of an array."""
    return encode_long(len(items))


def _signed(reading: SignedReading) -> bytes:
    texts = (reading.context, reading.data, reading.encoding_method, reading.signing_method, reading.public_key)
    return b"".join((_optional_long(reading.at_ms), *map(encode_text, texts)))
