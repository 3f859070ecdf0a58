"""What is wrong with a tariff or a session, each with the JSON path of the place."""

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


class UnreadableError(ValueError):
    """JSON that does not say what it should. Carries every reason that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class TariffError(UnreadableError):
    """A tariff that cannot be priced."""


class SessionError(UnreadableError):
    """A session that cannot be priced."""
