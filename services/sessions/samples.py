"""Meter values of all versions in one form: what was sampled, in SI units, and what a session draws from it.

Samples of one event have a *shape*: what is measured, in which order. Events of a station have the same shape from
one to the next, so a shape is worked out once and looked up afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson

from busbar.avro.samples import PackedSamples
from services.sessions.clock import station_ms
from services.sessions.signed import SignedReading, signed_from_2x, signed_from_16
from services.sessions.units import Double, SampleKind, sample_kind, to_micro

NO_NUMBER = -(2**63)
"""Stands for a value that could not be read, in packed samples."""

_MEMO_LIMIT = 4096
_SOUND_LIMIT = 10**16
"""10 GWh, 10 GW: a session draws nothing from values beyond."""
_FAST_LIMIT: Final = 1125899906842624.0
"""2^50. Below this many millionths, a product of doubles rounds to the exact integer."""
_TO_WHOLE: Final = 6755399441055744.0
"""1.5 * 2^52. Doubles of this size are whole numbers: adding it rounds, half to even, and taking it off is exact."""

_PHASES = (("L1", "L2", "L3"), ("L1-N", "L2-N", "L3-N"))
_LOCATIONS = ("Outlet", "Cable", "EV", "Inlet", "Body", "Upstream")
"""Where a register is measured, the place that counts for the driver first."""


@dataclass(slots=True)
class Reading:
    """What one meter value (one timestamp, one context) says of the energy and of the moment."""

    at_ms: int | None
    """The station's clock; `None` if its timestamp is unreadable."""
    rank: int
    """0: begin of the transaction, 1: between, 2: its end. Orders readings of the same time."""
    register_uwh: int | None
    location: str
    """Where the register is measured: registers of different places are different series."""
    unit_assumed: bool
    """The register came without a unit."""
    interval_uwh: int | None
    power_uw: int | None
    current_ua: int | None
    soc_micro: int | None


class Shape:
    """The kinds of the samples of one event, and where among them the values of interest are."""

    def __init__(self, kinds: tuple[SampleKind, ...]) -> None:
        self.kinds = kinds
        self.scales = [kind.scale for kind in kinds]
        self.registers = [
            (rank, location, indexes, any(kinds[index].source_unit is None for index in indexes))
            for rank, location, indexes in self._energy("Energy.Active.Import.Register")
        ]
        self.intervals = tuple(index for *_, found in self._energy("Energy.Active.Import.Interval") for index in found)
        self.power = self._momentary("Power.Active.Import", "W", prefer_total=True)
        self.current = self._momentary("Current.Import", "A", prefer_total=False)
        self.soc = self._momentary("SoC", "Percent", prefer_total=True)
        self.plain = all(kind.known_unit and not kind.signed for kind in kinds)
        self.simple = len(self.registers) <= 1 and not self.intervals
        """Whether one reading says it all."""
        columns = orjson.dumps(self.columns())
        self.shape_id = int.from_bytes(blake2b(columns, digest_size=8).digest(), "big", signed=True)
        """A number for the shape that is the same in every process and after a replay."""
        self.layout: Any = None
        """For the encoder of meter samples to keep what it worked out."""
        self.pack = struct.Struct(f">{len(kinds)}q").pack
        """Makes bytes of the values, as they are stored."""

    def columns(self) -> list[list[Any]]:
        """The kinds, member by member, as the table of shapes has them."""
        members = ("measurand", "context", "phase", "location", "unit", "source_unit", "multiplier", "signed")
        return [[getattr(kind, member) for kind in self.kinds] for member in members]

    def _energy(self, measurand: str) -> list[tuple[int, str, tuple[int, ...]]]:
        """(rank, location, indexes to add up) of an energy, for the best location of each context."""
        found: dict[tuple[int, str], dict[str, int]] = {}
        for index, kind in enumerate(self.kinds):
            if kind.measurand == measurand and kind.unit == "Wh" and not kind.signed:
                found.setdefault((kind.rank, kind.location), {}).setdefault(kind.phase, index)
        best: dict[int, tuple[int, str, tuple[int, ...]]] = {}
        for (rank, location), phases in sorted(found.items(), key=lambda item: _location_order(item[0][1])):
            indexes = _total(phases)
            if indexes and rank not in best:
                # The sum of other phases is another series than before.
                series = location if "" in phases else f"{location} of {len(indexes)} phases"
                best[rank] = (rank, series, indexes)
        return [best[rank] for rank in sorted(best)]

    def _momentary(self, measurand: str, unit: str, *, prefer_total: bool) -> tuple[int, ...]:
        """The indexes to add up for a momentary value, of the last context."""
        found: dict[tuple[int, int], dict[str, int]] = {}
        for index, kind in enumerate(self.kinds):
            if kind.measurand == measurand and kind.unit == unit and not kind.signed:
                place = (-kind.rank, _location_order(kind.location))
                found.setdefault(place, {}).setdefault(kind.phase, index)
        for _, phases in sorted(found.items()):
            indexes = _total(phases, prefer_total=prefer_total)
            if indexes:
                return indexes
        return ()


@dataclass(slots=True)
class Samples:
    """The samples of one event, its meter values one after the other."""

    shape: Shape
    values: list[int | None]
    """Millionths of the SI unit; `None` where nothing could be read."""
    times: list[int | None]
    """The station's time of each meter value."""
    counts: list[int]
    """How many samples each meter value has."""
    readings: list[Reading]
    signed: Sequence[SignedReading] = ()
    unreadable: bool = False
    """Whether a value, a unit or a member was met that the numbers do not hold."""
    _packed: bytes | None = field(default=None, repr=False)

    def packed(self) -> bytes:
        """The values as big-endian 64-bit integers."""
        if self._packed is None:
            values = self.values
            if self.unreadable or self.signed:
                values = [NO_NUMBER if value is None else value for value in values]
            self._packed = self.shape.pack(*values)
        return self._packed

    def first_ms(self) -> int | None:
        return min((at for at in self.times if at is not None), default=None)

    def last_ms(self) -> int | None:
        if len(self.times) == 1:
            return self.times[0]
        return max((at for at in self.times if at is not None), default=None)


def read_meter_values(meter_values: Any, *, is_v2: bool) -> Samples | None:
    """Read a `meterValue` or `transactionData` array. `None` if it holds no sample; it never raises."""
    if not isinstance(meter_values, list):
        return None
    parts = [part for item in meter_values if (part := _read_meter_value(item, is_v2)) is not None]
    if len(parts) <= 1:
        return parts[0] if parts else None
    kinds = tuple(kind for part in parts for kind in part.shape.kinds)
    return Samples(
        shape=shape_of(kinds),
        values=[value for part in parts for value in part.values],
        times=[part.times[0] for part in parts],
        counts=[part.counts[0] for part in parts],
        readings=[reading for part in parts for reading in part.readings],
        signed=[reading for part in parts for reading in part.signed],
        unreadable=any(part.unreadable for part in parts),
    )


def _read_meter_value(item: Any, is_v2: bool) -> Samples | None:
    if not isinstance(item, dict):
        return None
    sampled = item.get("sampledValue")
    if isinstance(sampled, PackedSamples):
        samples = _read_packed(sampled, station_ms(item.get("timestamp")), is_v2)
        if samples is not None:
            return samples
        sampled = sampled.expand()
    if not isinstance(sampled, list) or not sampled:
        return None
    sent = len(sampled)
    read = _read_2x if is_v2 else _read_16
    try:
        shape, values, signed = read(sampled)
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError):
        sampled = _sound(sampled)
        if not sampled:
            return None
        shape, values, signed = read(sampled)
    at_ms = station_ms(item.get("timestamp"))
    unreadable = not shape.plain or None in values or len(values) != sent
    if unreadable:
        unreadable = _is_unreadable(shape, values) or len(values) != sent
    signed_readings: Sequence[SignedReading] = ()
    if signed:
        make = signed_from_2x if is_v2 else signed_from_16
        signed_readings = [make(shape.kinds[index], at_ms, data, index) for index, data in signed]
    return Samples(shape, values, [at_ms], [len(values)], _readings(shape, values, at_ms), signed_readings, unreadable)


_Read = tuple[Shape, list[int | None], Sequence[tuple[int, Any]]]


def _read_2x(sampled: list[Any]) -> _Read:
    kinds: list[SampleKind] = []
    values: list[int | None] = []
    signed: list[tuple[int, Any]] = []
    for sample in sampled:
        get = sample.get
        unit = get("unitOfMeasure")
        key: tuple[Any, ...]
        if unit is None:
            key = (get("measurand"), get("context"), get("phase"), get("location"), None, None)
        else:
            key = (
                get("measurand"),
                get("context"),
                get("phase"),
                get("location"),
                unit.get("unit"),
                unit.get("multiplier"),
            )
        kind = _kinds_2x.get(key) or _kind_2x(key)
        values.append(to_micro(get("value"), kind))
        if "signedMeterValue" in sample:
            signed.append((len(kinds), sample["signedMeterValue"]))
        kinds.append(kind)
    return shape_of(tuple(kinds)), values, signed


def _read_16(sampled: list[Any]) -> _Read:
    kinds: list[SampleKind] = []
    values: list[int | None] = []
    signed: list[tuple[int, Any]] = []
    for sample in sampled:
        get = sample.get
        key = (get("measurand"), get("context"), get("phase"), get("location"), get("unit"), get("format"))
        kind = _kinds_16.get(key) or _kind_16(key)
        value = get("value")
        if kind.signed:
            signed.append((len(kinds), value))
            values.append(None)
        else:
            values.append(to_micro(value, kind))
        kinds.append(kind)
    return shape_of(tuple(kinds)), values, signed


class _Plan:
    """How to read samples that Avro's decoder has found to be like some before, but for their values."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        scales: list[Double] = [kind.scale for kind in shape.kinds]
        self._scales = scales
        self._plain = all(scales)

    def doubles(self, raw: tuple[Double, ...]) -> list[int | None] | None:
        """Doubles in millionths; `None` if one of them has to be looked at more closely."""
        if not self._plain:
            return None
        values: list[int | None] = []
        for value, scale in zip(raw, self._scales):  # noqa: B905 - the layout made both
            scaled = value * scale
            if not -_FAST_LIMIT < scaled < _FAST_LIMIT:  # or it is no number
                return None
            values.append(int(scaled + _TO_WHOLE - _TO_WHOLE))
        return values

    def numbers(self, raw: Sequence[Any]) -> list[int | None]:
        """Doubles in millionths, one by one; `None` for what is no number."""
        return [to_micro(value, kind) for value, kind in zip(raw, self.shape.kinds, strict=True)]

    def texts(self, raw: Sequence[str]) -> list[int | None]:
        """Texts in millionths; `None` for what is no number."""
        values: list[int | None] = []
        for value, kind in zip(raw, self.shape.kinds, strict=True):
            scale = kind.scale
            if scale and len(value) < 16 and value.replace(".", "", 1).isdecimal():
                scaled = float(value) * scale
                values.append(round(scaled) if scaled < _FAST_LIMIT else to_micro(value, kind))
            else:
                values.append(to_micro(value, kind))
        return values


def _read_packed(packed: PackedSamples, at_ms: int | None, is_v2: bool) -> Samples | None:
    """Samples by the plan that is kept with their layout; `None` if they cannot be read by one."""
    plan: _Plan | bool | None = packed.layout.reading
    if plan is None:
        shape, _, signed = (_read_2x if is_v2 else _read_16)(packed.expand())
        plan = packed.layout.reading = False if signed else _Plan(shape)
    if not isinstance(plan, _Plan):
        return None
    shape = plan.shape
    values = plan.doubles(tuple(packed.values)) if is_v2 else None
    unreadable = False
    if values is None or not shape.plain:
        if values is None:
            values = plan.numbers(packed.values) if is_v2 else plan.texts(packed.values)
        unreadable = _is_unreadable(shape, values)
    return Samples(shape, values, [at_ms], [len(values)], _readings(shape, values, at_ms), (), unreadable)


def as_sent(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload of a CALL with all its samples as objects."""
    sent = dict(payload)
    for name in ("meterValue", "transactionData"):
        items = sent.get(name)
        if isinstance(items, list):
            sent[name] = [_item_as_sent(item) for item in items]
    return sent


def _item_as_sent(item: Any) -> Any:
    sampled = item.get("sampledValue") if isinstance(item, dict) else None
    return {**item, "sampledValue": sampled.expand()} if isinstance(sampled, PackedSamples) else item


def _sound(sampled: list[Any]) -> list[dict[str, Any]]:
    """The samples with what cannot be looked up or multiplied taken out of them."""
    sound = []
    for sample in sampled:
        if not isinstance(sample, dict):
            continue
        kept: dict[str, Any] = {name: member for name, member in sample.items() if isinstance(member, str)}
        value = sample.get("value")
        kept["value"] = value if isinstance(value, str | int | float) else ""
        unit = sample.get("unitOfMeasure")
        if isinstance(unit, dict):
            kept["unitOfMeasure"] = {k: v for k, v in unit.items() if isinstance(v, str | int)}
        if isinstance(sample.get("signedMeterValue"), dict):
            kept["signedMeterValue"] = sample["signedMeterValue"]
        sound.append(kept)
    return sound


def _is_unreadable(shape: Shape, values: list[int | None]) -> bool:
    return any(
        not kind.signed and (value is None or not kind.known_unit)
        for kind, value in zip(shape.kinds, values, strict=True)
    )


def _readings(shape: Shape, values: list[int | None], at_ms: int | None) -> list[Reading]:
    power, current, soc = _sum(shape.power, values), _sum(shape.current, values), _sum(shape.soc, values)
    if shape.simple:
        if not shape.registers:
            return [Reading(at_ms, 1, None, "", False, None, power, current, soc)]
        rank, location, indexes, assumed = shape.registers[0]
        return [Reading(at_ms, rank, _sum(indexes, values), location, assumed, None, power, current, soc)]
    readings = [
        Reading(at_ms, rank, _sum(indexes, values), location, assumed, None, None, None, None)
        for rank, location, indexes, assumed in shape.registers
    ]
    if not readings:
        readings.append(Reading(at_ms, 1, None, "", False, None, None, None, None))
    last = readings[-1]
    last.interval_uwh = _sum(shape.intervals, values)
    last.power_uw, last.current_ua, last.soc_micro = power, current, soc
    return readings


def _sum(indexes: tuple[int, ...], values: list[int | None]) -> int | None:
    """The sum of these values; `None` if there are none, or one of them is no number or beyond reason."""
    total: int | None = None
    for index in indexes:
        value = values[index]
        if value is None or not -_SOUND_LIMIT < value < _SOUND_LIMIT:
            return None
        total = value if total is None else total + value
    return total


def _total(phases: dict[str, int], *, prefer_total: bool = True) -> tuple[int, ...]:
    """The value without a phase, or the phases to add up."""
    of_phases: tuple[int, ...] = ()
    for names in _PHASES:
        of_phases = of_phases or tuple(phases[name] for name in names if name in phases)
    if "" in phases and (prefer_total or not of_phases):
        return (phases[""],)
    return of_phases


def _location_order(location: str) -> int:
    return _LOCATIONS.index(location) if location in _LOCATIONS else len(_LOCATIONS)


_Key = tuple[Any, Any, Any, Any, Any, Any]
_kinds_16: dict[_Key, SampleKind] = {}
_kinds_2x: dict[_Key, SampleKind] = {}
_shapes: dict[tuple[SampleKind, ...], Shape] = {}


def _kind_16(key: _Key) -> SampleKind:
    measurand, context, phase, location, unit, form = key
    kind = sample_kind(measurand, context, phase, location, unit, signed=form == "SignedData")
    return _remember(_kinds_16, key, kind)


def _kind_2x(key: _Key) -> SampleKind:
    return _remember(_kinds_2x, key, sample_kind(*key))


def _remember(kinds: dict[_Key, SampleKind], key: _Key, kind: SampleKind) -> SampleKind:
    if len(kinds) >= _MEMO_LIMIT:
        _kinds_16.clear()
        _kinds_2x.clear()
        _shapes.clear()
    kinds[key] = kind
    return kind


def shape_of(kinds: tuple[SampleKind, ...]) -> Shape:
    """The shape of these kinds, worked out once."""
    shape = _shapes.get(kinds)
    if shape is None:
        if len(_shapes) >= _MEMO_LIMIT:
            _shapes.clear()
        shape = _shapes[kinds] = Shape(kinds)
    return shape


def with_register(samples: Samples | None, register_uwh: int | None, at_ms: int | None, context: str) -> Samples | None:
    """The samples, and behind them a `meterStart` or `meterStop` of 1.6. The readings stay those of the samples.

    Spec: OCPP 1.6 §6.45, §6.49: the register is an integer in Wh.
    """
    if register_uwh is None:
        return samples
    kind = _kinds_16.get(key := (None, context, None, None, "Wh", None)) or _kind_16(key)
    if samples is None:
        return Samples(shape_of((kind,)), [register_uwh], [at_ms], [1], [])
    return Samples(
        shape_of((*samples.shape.kinds, kind)),
        [*samples.values, register_uwh],
        [*samples.times, at_ms],
        [*samples.counts, 1],
        samples.readings,
        samples.signed,
        samples.unreadable,
    )
