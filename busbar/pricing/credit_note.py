"""A credit takes a bill back: the same lines, with what they charged given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIDES = ("excl_tax", "incl_tax")


def taken_back(document: Mapping[str, Any]) -> dict[str, Any]:
    """The explanation of a credit, from that of the bill that it takes back, as `explain` makes it."""
    return {
        **document,
        "total": _negative(document["total"]),
        "taxes": [{**tax, "amount": -tax["amount"]} for tax in document["taxes"]],
        "costs": {dimension: _negative(amount) for dimension, amount in document["costs"].items()},
        "lines": [_negative(line) for line in document["lines"]],
    }


def _negative(amount: Mapping[str, Any]) -> dict[str, Any]:
    return {name: -value if name in _SIDES else value for name, value in amount.items()}
