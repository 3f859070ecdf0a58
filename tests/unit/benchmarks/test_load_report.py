"""What a run of the load benchmark says: rows, sections of a page, plots and profiles."""

from __future__ import annotations

import math
import xml.etree.ElementTree
from array import array
from pathlib import Path

import pytest

from benchmarks.load import plots, report
from benchmarks.load.billing import Comparison, Slice, joined
from benchmarks.load.profiles import group_of, readable, summarize
from benchmarks.load.report import Row, quantiles
from benchmarks.load.scenarios import loop_delay_ms

LIBRARY = "busbar_compiled__mypyc.cpython-311-x86_64-linux-gnu.so"
CPU = {"edge": 60.0, "sessions": 90.0, "billing": 3.0, "insights": 4.0, "client": 20.0}


def test_the_sum_is_of_everything_but_the_client_and_unknown_services_are_the_others() -> None:
    row = Row("events", "TransactionEvent", 1000, 5000.0, (10.0, 20.0, 30.0), CPU, 0.9, (5.0, 100.0))
    assert row.cpu_sum == 157.0
    cells = [cell.strip() for cell in report.line(row).strip("|").split("|")]
    assert cells[3:] == ["10.0 / 20.0 / 30.0", "60 / 90 / 0 / 0 / 0 / 7 / 0 / 0 / 20", "157", "90%", "5 / ≤ 100"]
    assert len(cells) == len(report.HEAD)


def test_a_row_without_figures_is_a_line_all_the_same_and_tells_its_problem() -> None:
    line = report.line(Row("idle", "idle sockets", 0, problems=["FAILED: a|b"]))
    assert "**FAILED: a\\|b**" in line
    assert "nan" not in line


def test_a_section_is_written_anew_and_what_stands_around_it_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    report.replace(page, "figures", "old\n")
    page.write_text(page.read_text() + "\nafter\n")
    report.replace(page, "profile", "other\n")
    report.replace(page, "figures", "new\n")
    text = page.read_text()
    assert "old" not in text
    assert [text.index(word) for word in ("# Title", "new", "after", "other")] == sorted(
        text.index(word) for word in ("# Title", "new", "after", "other")
    )
    page.write_text(text.replace("<!-- figures: end -->", ""))
    with pytest.raises(ValueError, match="figures: end"):
        report.replace(page, "figures", "newer\n")


def test_the_worst_delay_is_the_bound_of_the_highest_bucket_that_was_hit_in_between() -> None:
    before = {0.01: 5.0, 0.1: 5.0, 1.0: 6.0, math.inf: 6.0}
    after = {0.01: 95.0, 0.1: 105.0, 1.0: 106.0, math.inf: 106.0}
    p99, worst = loop_delay_ms(before, after)
    assert worst == 100.0, "the one above was there before"
    assert 10.0 < p99 <= 100.0
    assert math.isnan(loop_delay_ms(after, after)[1])


def test_quantiles_of_nothing_are_not_numbers() -> None:
    assert all(map(math.isnan, quantiles([])))
    assert quantiles(value / 1000 for value in range(1, 101)) == (51.0, 96.0, 100.0)


def test_plots_are_drawn_of_what_there_is_and_hold_every_figure(tmp_path: Path) -> None:
    rows = [Row("events", "TransactionEvent", 1000, 5000.0, (1, 2, 3), CPU)]
    rows += [Row(f"latency-{rate}", "open", 1000, rate, (1.0, 2.0, float(rate))) for rate in (200, 1000)]
    rows += [Row("scaling", "scaling", count, 1000.0, (1, 2, 3), CPU) for count in (100, 19_500)]
    shown = plots.write(rows, tmp_path / "performance")
    assert [line.partition("](")[2].rstrip(")\n") for line in shown] == [
        "performance/cpu.svg",
        "performance/latency.svg",
        "performance/scaling.svg",
    ]
    for name in ("cpu", "latency", "scaling"):
        xml.etree.ElementTree.parse(tmp_path / "performance" / f"{name}.svg")
    assert ">90<" in (tmp_path / "performance" / "cpu.svg").read_text()
    assert plots.write([Row("idle", "idle", 0)], tmp_path / "nothing") == []


def one_slice(rate: float) -> Slice:
    """Two seconds in which everything took 10 ms, but for one message, and 500 us of CPU a message."""
    return Slice(Row("", "", 0, rate, (10.0, 10.0, 20.0), {"edge": 500.0}, 0.9), array("d", [0.01] * int(rate * 2)))


def test_what_billing_takes_is_told_by_slices_in_pairs_and_with_what_it_puts_off() -> None:
    found = Comparison([one_slice(rate) for rate in (1000, 500, 1100)], [one_slice(rate) for rate in (950, 490, 1000)])
    found.answered, found.lag, found.catch_up_seconds, found.cpu_seconds = 10_080, 900, 0.24, {"billing": 0.4032}
    row = joined(Row("billing", "with", 1000), found.those_with)
    assert (row.rate, row.quantiles_ms, row.busy) == (950.0, (10.0, 10.0, 10.0), 0.9)
    assert row.cpu_us == {"edge": 500.0}
    after = "40 us of billing's CPU for each message in the end, for it was behind by 900 events and caught up in 0.2 s"
    assert found.notes(is_closed=True) == [
        "0.946 ± 0.021 of the rate without it (mean of 3 pairs of slices and its standard error; 0.950 by medians)",
        after,
    ]
    assert found.notes(is_closed=False) == [
        "p50 10.0 ms, 10.0 without it (medians of 3 slices each)",
        "p99 20.0 ms, 20.0 without it (medians of 3 slices each)",
        after,
    ]


def test_a_problem_of_a_slice_is_told_once_by_its_row() -> None:
    slices = [one_slice(1000), one_slice(1000)]
    for each in slices:
        each.row.problems.append("3 never answered")
    assert joined(Row("billing", "with", 1000), slices).problems == ["3 never answered"]


@pytest.mark.parametrize(
    ("stack", "group"),
    [
        ("run (uvloop/__init__.py:92);write (libc.so.6)", "system call: write"),
        ("run (services/edge/hub.py:3);encode_1 (<avro csms.OutboundMessage>:7);sub_0x12 (libpython3.11.so)", "Avro"),
        ("take (services/sessions/energy.py:3);Py_DECREF (object.h:537)", "services/sessions/energy.py"),
        ("fold (busbar/stream/batch.py:1);gc_collect_main (libpython3.11.so.1.0)", "garbage collection"),
        (f"CPyDef_bill____taxes ({LIBRARY});CPyDict_GetItem ({LIBRARY})", "pricing"),
        (f"CPyDef_busbar_codec_csms_Cdr_7282f97a6e3ed531ba983305___encode_1 ({LIBRARY})", "Avro"),
        ("0x7f77 (libc.so.6)", "other"),
    ],
)
def test_a_sample_belongs_to_its_innermost_frame_that_says_something(stack: str, group: str) -> None:
    assert group_of(stack.split(";"))[0] == group


@pytest.mark.parametrize(
    ("compiled", "source"),
    [
        ("sessions___core___apply", "apply (services/sessions/core.py)"),
        ("billing___decoding____event", "_event (services/billing/decoding.py)"),
        ("kafka_batches___PartitionQueue___depart", "PartitionQueue.depart (busbar/stream/kafka_batches.py)"),
        (
            "sessions___store___load_state_gen_____mypyc_generator_helper__",
            "load_state (services/sessions/store.py)",
        ),
        (
            "busbar_codec_ocpp_v201_TransactionEvent_0123456789abcdef01234567___decode_2",
            "decode_2 (<avro ocpp_v201_TransactionEvent>)",
        ),
        ("nobody___knows", f"CPyDef_nobody___knows ({LIBRARY})"),
    ],
)
def test_compiled_functions_are_told_as_those_of_their_source(compiled: str, source: str) -> None:
    assert readable(f"CPyDef_{compiled} ({LIBRARY})") == source


def test_a_profile_adds_up_to_all_samples() -> None:
    table = summarize("edge-0", "a (x.py:1);write (libc.so.6) 75\nfold (services/sessions/core.py:9) 25\n")
    assert "| 75% | system call: write | `write` |" in table
    assert "| 25% | services/sessions/core.py | `fold` |" in table
