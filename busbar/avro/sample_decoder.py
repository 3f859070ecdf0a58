"""Decoding lists of sampled values by their layouts; see `busbar.avro.samples`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from busbar.avro.primitives import VARINTS, decode_block
from busbar.avro.samples import UNITS, VALUE, Memo, PackedSamples, Sample, repeats

ItemDecoder = Callable[[bytes, int], tuple[Any, int]]

_WINDOW = 24


@dataclass(frozen=True, slots=True)
class _Frame:
    """Takes a list of values of known sizes apart in one step."""

    read_between: Callable[[bytes, int], tuple[bytes, ...]]
    """Returns what stands between the values."""
    read_values: Callable[[bytes, int], tuple[Any, ...]]
    between: tuple[bytes, ...]
    size: int

    def values(self, data: bytes, position: int) -> tuple[Any, ...] | None:
        """The values, if all that stands between them is as it should be."""
        try:
            return self.read_values(data, position) if self.read_between(data, position) == self.between else None
        except struct.error:  # the data is too short
            return None


def _frame(tails: Sequence[bytes], sizes: Sequence[int] | None) -> _Frame:
    """The frame of strings of these sizes, or of doubles."""
    heads = [b""] * len(tails) if sizes is None else [VARINTS[size] for size in sizes]
    between = [tail + head for head, tail in zip([*heads, b""], [b"", *tails], strict=True)]
    if sizes is None:
        values, gaps = ["d"] * len(tails), ["8x"] * len(tails)
    else:
        values, gaps = [f"{size}s" for size in sizes], [f"{size}x" for size in sizes]
    parts = list(zip(map(len, between), [*values, ""], [*gaps, ""], strict=True))
    of_between = struct.Struct("<" + "".join(f"{length}s{gap}" for length, _, gap in parts))
    of_values = struct.Struct("<" + "".join(f"{length}x{value}" for length, value, _ in parts))
    return _Frame(of_between.unpack_from, of_values.unpack_from, tuple(between), of_values.size)


@dataclass(slots=True)
class _DecodeLayout:
    templates: list[Sample]
    """The samples with no value."""
    tails: list[bytes]
    """The last one with the mark that ends the list."""
    units: list[str]
    """What each sample's unit of measure says, if it says a unit and nothing else in every one of them."""
    objects: list[tuple[int, str, Sample]]
    """The objects inside the templates, which every list needs copies of."""
    frame: _Frame | None = None
    """For lists whose values all have the sizes of the last ones."""
    sizes: list[int] | None = None
    """The sizes of the last values."""
    reading: Any = None
    """What the reader of `PackedSamples` has worked out of it."""

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
        decode_item: The generated decoder of a sampled value.
        is_double: Its values are doubles, rather than strings.
        packed: Return lists that match a layout as `PackedSamples`.
    """

    def __init__(self, decode_item: ItemDecoder, *, is_double: bool, packed: bool = False) -> None:
        self._decode_item = decode_item
        self._packed = packed
        self._is_double = is_double
        self._memo = Memo()

    def decode(self, data: bytes, position: int) -> tuple[list[Sample] | PackedSamples, int]:
        """Read the list and return it with the position behind it. Raises as generated decoders do."""
        count = data[position]
        if not count or count & 129:  # empty, or more than a byte for the count
            return self._decode_items(data, position)
        begin = position + 1 + (8 if self._is_double else 1 + (data[position + 1] >> 1))
        key = (count, data[begin : begin + _WINDOW])
        layouts = self._memo.by_key.get(key)
        if layouts is not None:
            for layout in layouts:
                if self._is_double:
                    found = self._doubles(data, position + 1, layout)
                else:
                    found = self._strings(data, position + 1, layout)
                if found is not None:
                    values, end = found
                    return PackedSamples(layout, values) if self._packed else layout.fill(values), end
        samples, end, spans = self._decode_block(data, position + 1, count >> 1)
        if data[end]:
            more, end = self._decode_items(data, end)
            return samples + more, end
        self._learn(key, data, samples, spans)
        return samples, end + 1

    def _doubles(self, data: bytes, position: int, layout: _DecodeLayout) -> tuple[Sequence[Any], int] | None:
        frame = layout.frame
        values = None if frame is None else frame.values(data, position)
        return None if frame is None or values is None else (values, position + frame.size)

    def _strings(self, data: bytes, position: int, layout: _DecodeLayout) -> tuple[Sequence[Any], int] | None:
        if layout.frame is not None:
            raws = layout.frame.values(data, position)
            if raws is not None:
                return [raw.decode() for raw in raws], position + layout.frame.size
        values, sizes = [], []
        for tail in layout.tails:
            size = data[position]
            if size & 129:  # more than a byte, or negative
                return None
            begin = position + 1
            end = begin + (size >> 1)
            position = end + len(tail)
            if data[end:position] != tail:
                return None
            values.append(data[begin:end].decode())
            sizes.append(size >> 1)
        if sizes == layout.sizes:  # twice in a row: a third time is likely
            layout.frame = _frame(layout.tails, sizes)
        layout.sizes = sizes
        return values, position

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
            if not repeats(sample, tail):
                return
            tails.append(tail)
        tails[-1] += b"\x00"
        templates = [{**sample, VALUE: None} for sample in samples]
        objects = [(index, UNITS, dict(sample[UNITS])) for index, sample in enumerate(samples) if UNITS in sample]
        units = [member["unit"] for _, _, member in objects if member.keys() == {"unit"}]
        if len(units) < len(samples):
            units = []
        frame = _frame(tails, None) if self._is_double else None
        self._memo.add(key, _DecodeLayout(templates, tails, units, objects, frame), len(tails))
