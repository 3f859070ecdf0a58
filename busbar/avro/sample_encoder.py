"""Encoding lists of sampled values by their layouts; see `busbar.avro.samples`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from busbar.avro.primitives import VARINTS, encode_long
from busbar.avro.samples import MAX_SAMPLES, UNITS, VALUE, Memo, Sample, repeats

ItemEncoder = Callable[[bytearray, Any], None]


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
        encode_item: The generated encoder of a sampled value.
        is_double: Its values are doubles, rather than strings.
    """

    def __init__(self, encode_item: ItemEncoder, *, is_double: bool) -> None:
        self._encode_item = encode_item
        self._encode_matching = self._doubles if is_double else self._strings
        self._memo = Memo()

    def encode(self, out: bytearray, samples: list[Any]) -> None:
        """Append the count and the items. Raises as generated encoders do."""
        try:
            first = samples[0]
            key = (len(samples), first.get("measurand"), first.get("context"), first.get("phase"))
            layouts = self._memo.by_key.get(key)
            if layouts is not None:
                values = [sample[VALUE] for sample in samples]
                for layout in layouts:
                    if self._matches(layout, samples, values) and self._encode_matching(out, layout, values):
                        return
        except (AttributeError, KeyError, TypeError):
            key = None  # not what the schema says: the item encoder tells what is wrong
        self._encode_items(out, samples, key)

    def _matches(self, layout: _EncodeLayout, samples: list[Any], values: list[Any]) -> bool:
        for template, value in zip(layout.templates, values, strict=True):
            template[VALUE] = value
        if layout.templates != samples:
            return False
        return not any(samples[index][UNITS][name].__class__ is bool for index, name in layout.numbers)

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

    def _encode_items(self, out: bytearray, samples: list[Any], key: Any) -> None:
        out += encode_long(len(samples))
        spans = []
        for sample in samples:
            begin = len(out)
            self._encode_item(out, sample)
            spans.append((begin, len(out)))
        if key is None or len(samples) > MAX_SAMPLES:
            return
        tails = []
        for sample, (begin, end) in zip(samples, spans, strict=True):
            value = sample[VALUE]
            tail = bytes(out[begin + (_text_size(value) if isinstance(value, str) else 8) : end])
            if not repeats(sample, tail):
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
        for name, member in template.get(UNITS, {}).items()
        if not isinstance(member, str)
    ]
    parts: list[Any] = [VARINTS[len(tails)]]
    for tail in tails:
        parts += [0.0, tail]
    pack = struct.Struct("<1s" + "".join(f"d{len(tail)}s" for tail in tails)).pack
    return _EncodeLayout(templates, tails, numbers, pack, parts)


def _text_size(text: str) -> int:
    """How many bytes a string takes."""
    size = len(text.encode())
    return size + len(encode_long(size))
