"""The record of long runs: a table in a document, a row for each run."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- runs -->", "<!-- end of runs -->"
KINDS = ("kill", "stop", "pause", "cut", "hole")
_HEAD = ("seed", "nodes", "stations", "faults", *KINDS, "acknowledged", "resent", "take-over s", "result")


@dataclass(frozen=True, slots=True)
class Run:
    """One seed's ordeal."""

    seed: int
    kafka_nodes: int
    stations: int
    faults: Counter[str]
    """By what was done to whom."""
    acknowledged: int
    sendings: int
    take_overs: Sequence[float]
    """Seconds."""
    problems: int
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.faults.values())

    def kinds(self) -> Counter[str]:
        """Faults by kind alone."""
        kinds: Counter[str] = Counter()
        for what, count in self.faults.items():
            kinds[what.partition(" ")[0]] += count
        return kinds

    def cells(self) -> tuple[str, ...]:
        """Its row."""
        kinds = self.kinds()
        times = f"{statistics.median(self.take_overs):.1f} / {max(self.take_overs):.1f}" if self.take_overs else "-"
        return (
            str(self.seed),
            str(self.kafka_nodes),
            str(self.stations),
            str(self.total),
            *(str(kinds[kind]) for kind in KINDS),
            str(self.acknowledged),
            str(self.sendings - self.acknowledged),
            times,
            f"{self.problems} problems" if self.problems else "holds",
        )


def record(path: Path, run: Run) -> None:
    """Write the run's row between the marks in the document, in place of an older one of the same seed and nodes."""
    before, mark, rest = path.read_text().partition(BEGIN)
    table, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{path} has no place for a table: put {BEGIN} and {END} into it")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines() if "|" in line]
    kept = {row[:2]: row for row in rows if re.fullmatch(r"\d+", row[0])}
    kept[run.cells()[:2]] = run.cells()
    ordered = sorted(kept.values(), key=lambda row: (int(row[1]), int(row[0])))
    lines = [_HEAD, ("--:",) * (len(_HEAD) - 1) + (":--",), *ordered]
    faults, facts = (sum(int(row[place]) for row in ordered) for place in (3, 4 + len(KINDS)))
    held = sum(row[-1] == "holds" for row in ordered)
    total = (
        f"{faults} faults in {len(ordered)} runs, {facts} facts acknowledged; every invariant held in {held} of them."
    )
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{total}\n\n{END}{after}")
