"""What is wrong with a tariff, each with the JSON path of the place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason, and where it is."""

    path: str
    """As in `$.elements[0].price_components[1].step_size`."""
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TariffError(ValueError):
    """A tariff that cannot be priced. Carries every reason that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))
