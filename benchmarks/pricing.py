"""How long pricing takes: a running update, a running cost, the bill of a finished session, and its state as bytes.

    python -m benchmarks.pricing [--repeat N]

Prints microseconds, best and median of several runs, for sessions of ten minutes and of ten hours and for tariffs from
one price to a price an hour. Needs nothing but the engine; nothing else should run on the core.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from decimal import Decimal

from busbar.pricing.engine import Options, Pricer
from busbar.pricing.facts import ChargingState, Fact, ended, sampled, started
from busbar.pricing.ocpi_tariff import parse_ocpi_tariff
from busbar.pricing.state import SessionState

START_MS = 1_773_219_600_000
"""2026-03-11T09:00:00Z"""
MINUTE_MS = 60_000


def flat_tariff() -> dict[str, object]:
    component = {"type": "ENERGY", "price": Decimal("0.45"), "vat": Decimal(19), "step_size": 1}
    return {"id": "flat", "currency": "EUR", "tax_included": "NO", "elements": [{"price_components": [component]}]}


def hourly_tariff() -> dict[str, object]:
    """A price an hour for energy and for time, parking by the hour from ten minutes on, limits: 26 elements."""
    vat = Decimal(21)
    elements: list[dict[str, object]] = [
        {
            "price_components": [
                {"type": "ENERGY", "price": Decimal(20 + hour) / 100, "vat": vat, "step_size": 1},
                {"type": "TIME", "price": Decimal(50 + hour) / 100, "vat": Decimal(9), "step_size": 60},
            ],
            "restrictions": {"start_time": f"{hour:02}:00", "end_time": f"{(hour + 1) % 24:02}:00"},
        }
        for hour in range(24)
    ]
    parking = {"type": "PARKING_TIME", "price": Decimal(6), "vat": vat, "step_size": 60}
    elements.append({"price_components": [parking], "restrictions": {"min_duration": 600}})
    elements.append({"price_components": [{"type": "FLAT", "price": Decimal(1), "vat": vat, "step_size": 0}]})
    return {
        "id": "hourly",
        "currency": "EUR",
        "tax_included": "NO",
        "max_price": {"before_taxes": Decimal(500), "after_taxes": Decimal(600)},
        "elements": elements,
    }


def power_tariff() -> dict[str, object]:
    def component(price: str) -> dict[str, object]:
        return {"type": "ENERGY", "price": Decimal(price), "vat": Decimal(20), "step_size": 1}

    elements: list[dict[str, object]] = [
        {"price_components": [component("0.20")], "restrictions": {"max_power": 16}},
        {"price_components": [component("0.35")], "restrictions": {"max_power": 32}},
        {"price_components": [component("0.50")]},
    ]
    return {"id": "power", "currency": "EUR", "tax_included": "NO", "elements": elements}


def session(minutes: int, every: int = 1) -> list[Fact]:
    """Power goes up and down from sample to sample, so that each changes the band of a power tariff."""
    register = Decimal(1_234_567)
    facts = [started(START_MS, register)]
    for minute in range(every, minutes, every):
        register += Decimal(100 + 500 * (minute // every % 2)) * every
        facts.append(sampled(START_MS + minute * MINUTE_MS, register, ChargingState.CHARGING, 11_000, 16))
    facts.append(ended(START_MS + minutes * MINUTE_MS, register + 100))
    return facts


def measure(repeat: int, run: Callable[[], object]) -> str:
    times = []
    for _ in range(repeat):
        before = time.perf_counter_ns()
        run()
        times.append((time.perf_counter_ns() - before) / 1000)
    return f"{min(times):9.1f} {statistics.median(times):9.1f}"


def folded(pricer: Pricer, facts: list[Fact]) -> SessionState:
    state = pricer.begin()
    for fact in facts:
        state = pricer.advance(state, fact)
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=300)
    repeat = parser.parse_args().repeat
    print(f"Python {platform.python_version()} on {platform.machine()}, microseconds")
    print(f"{'':58} {'best':>9} {'median':>9}")
    for make in (flat_tariff, power_tariff, hourly_tariff):
        tariff = parse_ocpi_tariff(make())
        for keep in (True, False):
            for minutes in (10, 600, 6000):
                running(Pricer(tariff, "Europe/Berlin", Options(keep_periods=keep)), minutes, repeat)
    finished(Pricer(parse_ocpi_tariff(power_tariff()), "Europe/Berlin"), session(100), repeat)
    finished(Pricer(parse_ocpi_tariff(hourly_tariff()), "Europe/Berlin"), session(6000, 60), repeat)


def running(pricer: Pricer, minutes: int, repeat: int) -> None:
    """One more fact after so many minutes, one a minute."""
    facts = session(minutes)
    state, fact = folded(pricer, facts[:-1]), facts[-1]
    kept = "periods" if pricer.options.keep_periods else "running cost only"
    name = f"{pricer.tariff.tariff_id}, {minutes} samples, {kept}"
    size = len(state.to_bytes())
    print(f"{name + ': update':58} {measure(repeat, lambda: pricer.advance(state, fact))}")
    print(f"{name + ': cost':58} {measure(repeat, lambda: pricer.cost(state))}")
    print(f"{name + f': to bytes ({size} B)':58} {measure(repeat, state.to_bytes)}")


def finished(pricer: Pricer, facts: list[Fact], repeat: int) -> None:
    """A whole session, with the explanation."""
    bill, state = pricer.price(facts), folded(pricer, facts)
    name = f"{pricer.tariff.tariff_id}: {len(bill.periods)} periods, {len(bill.lines)} lines"
    print(f"{name + ': from facts to bill':58} {measure(repeat, lambda: pricer.price(facts))}")
    print(f"{name + ': bill only':58} {measure(repeat, lambda: pricer.finish(state))}")


if __name__ == "__main__":
    main()
