"""Lists that are narrowed down by what a request gives of many conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def narrowed(conditions: Iterable[tuple[str, Any]], values: list[Any]) -> list[str]:
    """The SQL conditions whose value is given; the values are appended to `values`.

    Args:
        conditions: Such as `("station_id = ${}", "CS-1")`; `None` is not given.
        values: The arguments of the statement so far.
    """
    clauses = []
    for clause, value in conditions:
        if value is not None:
            values.append(value)
            clauses.append(clause.format(len(values)))
    return clauses or ["true"]
