"""Sampled values come in lists that repeat: what follows `value` is the same from one event to the next.

A *layout* is such a list without its values: for each sample the bytes that follow the value (its tail) and the
members that they stand for. A list that matches a known layout is coded by filling in the values; any other list is
coded sample by sample and its layout remembered. Whether a list matches is decided by comparing all of it, so a
layout only ever saves time.

Decoded lists are made anew for every event: nothing that is handed out is shared.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from busbar.avro.primitives import VARINTS, decode_block, encode_long
from busbar.avro.schema import Primitive, Record, Type

MAX_TAILS = 4096
"""A memo is cleared when its layouts have more samples than this."""

_NAMES = frozenset({"SampledValue", "SampledValueType"})
_VALUE = "value"
_UNITS = "unitOfMeasure"
_SIGNED = "signedMeterValue"
_EXACT_VALUE = b"\x0avalue"  # how the name begins an entry of `extra`
_MAX_SAMPLES = 63  # the count of a longer list takes more than a byte
_MAX_TAIL_BYTES = 192
_WINDOW = 24
_ALTERNATIVES = 4

Sample = dict[str, Any]
ItemEncoder = Callable[[bytearray, Any], None]
ItemDecoder = Callable[[bytes, int], tuple[Any, int]]


def is_sample_record(type_: Type) -> bool:
    """Whether it is the record of a sampled value: OCPP 1.6 has the value as a string, 2.x as a double."""
    return (
        isinstance(type_, Record)
        and type_.name.rpartition(".")[2] in _NAMES
        and type_.fields[0].json_name == _VALUE
        and type_.fields[0].type in (Primitive("string"), Primitive("double"))
    )


class _Memo:
    """Layouts by a key that tells most of them apart, a few to a key, within a bound."""

    def __init__(self) -> None:
        self.by_key: dict[Any, list[Any]] = {}
        self._tails = 0

    def add(self, key: Any, layout: Any, tails: int) -> None:
        self._tails += tails
        if self._tails > MAX_TAILS:
            self.by_key.clear()
            self._tails = tails
        known = self.by_key.setdefault(key, [])
        known.insert(0, layout)
        del known[_ALTERNATIVES:]


@dataclass(slots=True)
class _EncodeLayout:
    templates: list[Sample]
    """The samples; before a comparison they get the values of the list at hand."""
    tails: list[bytes]
    numbers: list[tuple[int, str]]
    """Where units of measure have numbers: those could equal `True` or `False` in the list at hand."""
    pack: Callable[..., bytes]
    parts: list[Any]
    """For doubles: the arguments of `pack`, with the tails in place."""


class SampleEncoder:
    """Encodes a list of sampled values, but for the mark that ends it.

    Args:
        record: The record of a sampled value.
        encode_item: Its generated encoder.
    """

    def __init__(self, record: Record, encode_item: ItemEncoder) -> None:
        self._encode_item = encode_item
        self._encode_matching = self._doubles if record.fields[0].type == Primitive("double") else self._strings
        self._memo = _Memo()

    def __call__(self, out: bytearray, samples: list[Sample]) -> None:
        """Append the count and the items. Raises as generated encoders do."""
        try:
            first = samples[0]
            key = (len(samples), first.get("measurand"), first.get("context"), first.get("phase"))
            layouts = self._memo.by_key.get(key)
            if layouts is not None:
                values = [sample[_VALUE] for sample in samples]
                for layout in layouts:
                    if self._matches(layout, samples, values) and self._encode_matching(out, layout, values):
                        return
        except (AttributeError, KeyError, TypeError):
            key = None  # not what the schema says: the item encoder tells what is wrong
        self._encode_items(out, samples, key)

    def _matches(self, layout: _EncodeLayout, samples: list[Sample], values: list[Any]) -> bool:
        for template, value in zip(layout.templates, values, strict=True):
            template[_VALUE] = value
        if layout.templates != samples:
            return False
        return not any(samples[index][_UNITS][name].__class__ is bool for index, name in layout.numbers)

    def _doubles(self, out: bytearray, layout: _EncodeLayout, values: list[Any]) -> bool:
        types = set(map(type, values))
        if types != {float}:
            if not types <= {float, int}:
                return False
            try:
                doubles = list(map(float, values))
            except OverflowError:
                return False
            if doubles != values:  # a whole number that no double is equal to
                return False
            values = doubles
        parts = layout.parts.copy()
        parts[1::2] = values
        out += layout.pack(*parts)
        return True

    def _strings(self, out: bytearray, layout: _EncodeLayout, values: list[Any]) -> bool:
        raws = [value.encode() for value in values]
        out += VARINTS[len(raws)]
        for raw, tail in zip(raws, layout.tails, strict=True):
            size = len(raw)
            out += VARINTS[size] if size < 8192 else encode_long(size)
            out += raw
            out += tail
        return True

    def _encode_items(self, out: bytearray, samples: list[Sample], key: Any) -> None:
        out += encode_long(len(samples))
        spans = []
        for sample in samples:
            begin = len(out)
            self._encode_item(out, sample)
            spans.append((begin, len(out)))
        if key is None or len(samples) > _MAX_SAMPLES:
            return
        tails = []
        for sample, (begin, end) in zip(samples, spans, strict=True):
            value = sample[_VALUE]
            tail = bytes(out[begin + (_text_size(value) if isinstance(value, str) else 8) : end])
            if not _repeats(sample, tail):
                return
            tails.append(tail)
        self._memo.add(key, _encode_layout(samples, tails), len(tails))


def _encode_layout(samples: Sequence[Sample], tails: list[bytes]) -> _EncodeLayout:
    templates = [
        {name: dict(member) if isinstance(member, dict) else member for name, member in sample.items()}
        for sample in samples
    ]
    numbers = [
        (index, name)
        for index, template in enumerate(templates)
        for name, member in template.get(_UNITS, {}).items()
        if not isinstance(member, str)
    ]
    parts: list[Any] = [VARINTS[len(tails)]]
    for tail in tails:
        parts += [0.0, tail]
    pack = struct.Struct("<1s" + "".join(f"d{len(tail)}s" for tail in tails)).pack
    return _EncodeLayout(templates, tails, numbers, pack, parts)


@dataclass(slots=True)
class _DecodeLayout:
    templates: list[Sample]
    """The samples with no value."""
    tails: tuple[bytes, ...]
    """The last one with the mark that ends the list."""
    units: list[str]
    """What each sample's unit of measure says, if it says a unit and nothing else in every one of them."""
    objects: list[tuple[int, str, Sample]]
    """The objects inside the templates, which every list needs copies of."""
    unpack: Callable[[bytes, int], tuple[Any, ...]]
    """For doubles: reads values and tails in turn."""
    size: int

    def fill(self, values: Sequence[Any]) -> list[Sample]:
        samples = list(map(dict.copy, self.templates))
        if self.units:
            for sample, value, unit in zip(samples, values, self.units):  # noqa: B905 - the layout made them
                sample["value"] = value
                sample["unitOfMeasure"] = {"unit": unit}
            return samples
        for sample, value in zip(samples, values):  # noqa: B905
            sample["value"] = value
        for index, name, member in self.objects:
            samples[index][name] = member.copy()
        return samples


class SampleDecoder:
    """Decodes a list of sampled values with the mark that ends it.

    Args:
        record: The record of a sampled value.
        decode_item: Its generated decoder.
    """

    def __init__(self, record: Record, decode_item: ItemDecoder) -> None:
        self._decode_item = decode_item
        self._is_double = record.fields[0].type == Primitive("double")
        self._memo = _Memo()

    def __call__(self, data: bytes, position: int) -> tuple[list[Sample], int]:
        """Read the list and return it with the position behind it. Raises as generated decoders do."""
        count = data[position]
        if not count or count & 129:  # empty, or more than a byte for the count
            return self._decode_items(data, position)
        begin = position + 1 + (8 if self._is_double else 1 + (data[position + 1] >> 1))
        key = (count, data[begin : begin + _WINDOW])
        layouts = self._memo.by_key.get(key)
        if layouts is not None:
            decode = self._doubles if self._is_double else self._strings
            for layout in layouts:
                found = decode(data, position + 1, layout)
                if found is not None:
                    return found
        samples, end, spans = self._decode_block(data, position + 1, count >> 1)
        if data[end]:
            more, end = self._decode_items(data, end)
            return samples + more, end
        self._learn(key, data, samples, spans)
        return samples, end + 1

    def _doubles(self, data: bytes, position: int, layout: _DecodeLayout) -> tuple[list[Sample], int] | None:
        try:
            parts = layout.unpack(data, position)
        except struct.error:  # shorter than this layout
            return None
        if parts[1::2] != layout.tails:
            return None
        return layout.fill(parts[::2]), position + layout.size

    def _strings(self, data: bytes, position: int, layout: _DecodeLayout) -> tuple[list[Sample], int] | None:
        values = []
        for tail in layout.tails:
            size = data[position]
            if size & 129:
                return None
            begin = position + 1
            end = begin + (size >> 1)
            position = end + len(tail)
            if data[end:position] != tail:
                return None
            values.append(data[begin:end].decode())
        return layout.fill(values), position

    def _decode_items(self, data: bytes, position: int) -> tuple[list[Sample], int]:
        samples: list[Sample] = []
        while data[position]:
            count, position = decode_block(data, position)
            items, position, _ = self._decode_block(data, position, count)
            samples += items
        return samples, position + 1

    def _decode_block(self, data: bytes, position: int, count: int) -> tuple[list[Sample], int, list[tuple[int, int]]]:
        samples, spans = [], []
        for _ in range(count):
            begin = position
            sample, position = self._decode_item(data, position)
            samples.append(sample)
            spans.append((begin, position))
        return samples, position, spans

    def _learn(self, key: Any, data: bytes, samples: list[Sample], spans: list[tuple[int, int]]) -> None:
        tails = []
        for sample, (begin, end) in zip(samples, spans, strict=True):
            if not self._is_double and data[begin] & 129:  # a value too long for the fast path
                return
            tail = data[begin + (8 if self._is_double else 1 + (data[begin] >> 1)) : end]
            if not _repeats(sample, tail):
                return
            tails.append(tail)
        tails[-1] += b"\x00"
        templates = [{**sample, _VALUE: None} for sample in samples]
        objects = [(index, _UNITS, dict(sample[_UNITS])) for index, sample in enumerate(samples) if _UNITS in sample]
        units = [member["unit"] for _, _, member in objects if member.keys() == {"unit"}]
        if len(units) < len(samples):
            units = []
        unpack = struct.Struct("<" + "".join(f"d{len(tail)}s" for tail in tails)).unpack_from
        size = sum(map(len, tails)) + 8 * len(tails)
        self._memo.add(key, _DecodeLayout(templates, tuple(tails), units, objects, unpack, size), len(tails))


def _text_size(text: str) -> int:
    """How many bytes a string takes."""
    size = len(text.encode())
    return size + len(encode_long(size))


def _repeats(sample: Sample, tail: bytes) -> bool:
    """Whether a tail stands for its members whatever the value is, and may well come again.

    It does not where `extra` has the exact value, and it hardly does where the sample is signed.
    """
    if len(tail) > _MAX_TAIL_BYTES or _EXACT_VALUE in tail:
        return False
    for name, member in sample.items():
        if name == _UNITS:
            if member.__class__ is not dict or any(part.__class__ not in (str, int) for part in member.values()):
                return False
        elif name != _VALUE and (name == _SIGNED or member.__class__ is not str):
            return False
    return True
