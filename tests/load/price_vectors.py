"""Price worked examples with the engine and compare with what is expected.

    python -m tests.load.price_vectors CASES.json [CASES.json ...]

Each file holds `cases`: an OCPI tariff, a location, a feed of neutral facts and the expected totals, all numbers as
decimal strings. Disputed cases are listed and not judged. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from busbar.pricing.bill import Bill, LineKind
from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import Fact, FactKind
from busbar.pricing.jsontext import parse_json
from busbar.pricing.money import Rounding
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.session_json import read_facts
from busbar.pricing.tariff import Dimension

EVENTS = {
    "start": FactKind.STARTED,
    "meter": FactKind.SAMPLED,
    "state": FactKind.SAMPLED,
    "stop": FactKind.ENDED,
    "reserve": FactKind.RESERVED,
    "reservation_expired": FactKind.RESERVATION_EXPIRED,
}
COMPONENTS = {
    "RESERVATION_TIME": Dimension.RESERVATION_TIME,
    "RESERVATION_FLAT": Dimension.RESERVATION_FLAT,
    **{dimension.value: dimension for dimension in Dimension},
}
BILLED = {
    "ENERGY_kwh": (Dimension.ENERGY, 1),
    "TIME_min": (Dimension.TIME, 60),
    "PARKING_TIME_min": (Dimension.PARKING_TIME, 60),
    "RESERVATION_min": (Dimension.RESERVATION_TIME, 60),
}
TOTALS = {
    "total_energy_cost": Dimension.ENERGY,
    "total_fixed_cost": Dimension.FLAT,
    "total_time_cost": Dimension.TIME,
    "total_parking_cost": Dimension.PARKING_TIME,
}


def facts(feed: list[dict[str, Any]]) -> Sequence[Fact]:
    """The case's feed as the engine takes it."""
    names = {"t": "at", "ev": "kind"}
    items = [{names.get(name, name): value for name, value in item.items()} for item in feed]
    return read_facts([item | {"kind": EVENTS[item["kind"]]} for item in items]).facts


def price(case: dict[str, Any], digits: int | None = None) -> Bill:
    """Price one case, rounding once to so many digits."""
    tariff = parse_ocpi_tariff(case["tariff"])
    pricer = Pricer(tariff, case["location"]["time_zone"], Options(rounding=Rounding(digits=digits)))
    return pricer.price(facts(case["feed"]))


def compare(case: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What is compared, expected, got, and whether it agrees at the digits that are printed."""
    bill = price(case, 10)
    got: list[tuple[str, str, Decimal]] = []
    for side, key in (("excl_tax", "excl"), ("incl_tax", "incl")):
        names = (f"total_{key}", f"unrounded_{key}")
        got.extend((name, expected[name], getattr(bill.total, side)) for name in names if name in expected)
        for name, dimension in TOTALS.items():
            if name in expected:
                got.append((f"{name}.{key}", expected[name][key], getattr(bill.costs[dimension], side)))
    for name, value in expected.get("components", {}).items():
        got.append((name, value, bill.costs[COMPONENTS[name]].excl_tax))
    for name, value in expected.get("billed", {}).items():
        dimension, unit = BILLED[name]
        got.append((f"billed {name}", value, bill.billed[dimension] / unit))
    for name, value, result in got:
        wanted = Decimal(value)
        yield name, value, f"{result.normalize():f}", result.quantize(wanted, ROUND_HALF_UP) == wanted
    ordinary = price(case)
    lines = sum((line.excl_tax for line in ordinary.lines), Decimal(0))
    rounding = [line for line in ordinary.lines if line.kind is LineKind.ROUNDING]
    adds_up = lines == ordinary.total.excl_tax and len(rounding) <= 1
    yield "lines", str(ordinary.total.excl_tax), str(lines), adds_up


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    wrong = cases = checks = 0
    for path in parser.parse_args(arguments).files:
        for case in parse_json(path.read_text())["cases"]:
            cases += 1
            disputed = bool(case.get("disputed"))
            expected = case.get("spec_expected") or case["expected"]
            for name, value, result, agrees in compare(case, expected):
                checks += 1
                verdict = "ok" if agrees else "disputed" if disputed else "DIFFERS"
                wrong += verdict == "DIFFERS"
                mark = "(disputed) " if disputed and agrees else ""
                print(f"{case['id']:42} {name:26} {value:>10} {result:>16}  {mark}{verdict}")
    print(f"{cases} cases, {checks} comparisons, {wrong} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
