"""Sampled values come in lists that repeat: what follows `value` is the same from one event to the next.

A *layout* is such a list without its values: for each sample the bytes that follow the value (its tail) and the
members that they stand for. A list that matches a known layout is coded by filling in the values; any other list is
coded sample by sample and its layout remembered. Whether a list matches is decided by comparing all of it, so a
layout only ever saves time.

Decoded lists are made anew for every event: nothing that is handed out is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from busbar.avro.schema import Primitive, Record, Type

MAX_TAILS = 4096
"""A memo is cleared when its layouts have more samples than this."""
MAX_SAMPLES = 63
"""Longer lists have no layout: their count takes more than a byte."""

VALUE = "value"
UNITS = "unitOfMeasure"

_NAMES = frozenset({"SampledValue", "SampledValueType"})
_SIGNED = "signedMeterValue"
_EXACT_VALUE = b"\x0avalue"  # how the name begins an entry of `extra`
_MAX_TAIL_BYTES = 192
_ALTERNATIVES = 4

Sample = dict[str, Any]


def is_sample_record(type_: Type) -> bool:
    """Whether it is the record of a sampled value: OCPP 1.6 has the value as a string, 2.x as a double."""
    return (
        isinstance(type_, Record)
        and type_.name.rpartition(".")[2] in _NAMES
        and type_.fields[0].json_name == VALUE
        and type_.fields[0].type in (Primitive("string"), Primitive("double"))
    )


class Memo:
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


def repeats(sample: Sample, tail: bytes) -> bool:
    """Whether a tail stands for its members whatever the value is, and may well come again.

    It does not where `extra` has the exact value, and it hardly does where the sample is signed.
    """
    if len(tail) > _MAX_TAIL_BYTES or _EXACT_VALUE in tail:
        return False
    for name, member in sample.items():
        if name == UNITS:
            if member.__class__ is not dict or any(part.__class__ not in (str, int) for part in member.values()):
                return False
        elif name != VALUE and (name == _SIGNED or member.__class__ is not str):
            return False
    return True


@dataclass(slots=True)
class PackedSamples:
    """Decoded sampled values that have not been made into objects: what repeats, and the values of this list.

    For readers that want numbers: they work out once what a layout means, and keep it in `layout.reading`.
    """

    layout: Any
    values: Sequence[Any]
    """Doubles in 2.x, strings in 1.6; in the order of the samples."""

    def expand(self) -> list[Sample]:
        """The samples as they were sent."""
        filled: list[Sample] = self.layout.fill(self.values)
        return filled
