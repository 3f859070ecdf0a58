"""The table of long runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.report import BEGIN, END, Run, record


def run(seed: int, nodes: int = 1, problems: int = 0) -> Run:
    return Run(
        seed=seed,
        kafka_nodes=nodes,
        stations=20,
        faults=Counter({"kill sessions": 2, "kill edge": 1, "hole edge-kafka": 1}),
        acknowledged=100,
        sendings=130,
        take_overs=[3.0, 0.5, 4.0],
        problems=problems,
        seconds=90.0,
    )


def test_rows_are_added_and_replaced_and_added_up(tmp_path: Path) -> None:
    document = tmp_path / "chaos.md"
    document.write_text(f"# Before\n\n{BEGIN}\n{END}\n\nAfter\n")
    record(document, run(2, problems=3))
    record(document, run(1, nodes=3))
    record(document, run(10))
    record(document, run(2))
    text = document.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("After\n")
    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| 2 | 1 | 20 | 4 | 3 | 0 | 0 | 0 | 1 | 100 | 30 | 3.0 / 4.0 | holds |",
        "| 10 | 1 | 20 | 4 | 3 | 0 | 0 | 0 | 1 | 100 | 30 | 3.0 / 4.0 | holds |",
        "| 1 | 3 | 20 | 4 | 3 | 0 | 0 | 0 | 1 | 100 | 30 | 3.0 / 4.0 | holds |",
    ]
    assert "12 faults in 3 runs, 300 facts acknowledged; every invariant held in 3 of them." in text


def test_a_failed_run_is_told_as_such(tmp_path: Path) -> None:
    document = tmp_path / "chaos.md"
    document.write_text(f"{BEGIN}{END}")
    record(document, run(5, problems=2))
    assert "| 2 problems |" in document.read_text()
    assert "held in 0 of them" in document.read_text()


def test_a_document_without_a_place_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text("# Nothing\n")
    with pytest.raises(ValueError, match="no place for a table"):
        record(document, run(1))
