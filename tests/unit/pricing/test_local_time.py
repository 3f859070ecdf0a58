"""Windows, days and dates on the location's wall clock, also where it is put forward or back."""

from __future__ import annotations

from decimal import Decimal

import pytest

from busbar.pricing.clock import local_clock
from busbar.pricing.facts import ended, started
from busbar.pricing.tariff import Tariff
from tests.unit.pricing.builders import CHARGING, component, element, ms, price, session, tariff, totals

BERLIN = "Europe/Berlin"


def by_window(start: str, end: str, **restrictions: object) -> Tariff:
    """1.00 an hour within, 0.10 outside; 1.00 a kWh within, 0.10 outside."""
    inside = component("TIME", "1.00"), component("ENERGY", "1.00")
    outside = component("TIME", "0.10"), component("ENERGY", "0.10")
    return tariff(element(*inside, start_time=start, end_time=end, **restrictions), element(*outside))


def hours(tariff: Tariff, start: str, minutes: int, zone: str = BERLIN) -> Decimal:
    """How many hours of a session without energy were within the window."""
    total = totals(tariff, session(start, (CHARGING, minutes, 0)), zone)[0]
    return ((total - Decimal(minutes) / 600) / Decimal("0.9")).quantize(Decimal("0.0001"))


@pytest.mark.parametrize(
    ("start", "end", "begin", "minutes", "within"),
    [
        ("09:00", "17:00", "2026-06-10 08:00+02:00", 600, 8),
        ("09:00", "17:00", "2026-06-10 09:00+02:00", 60, 1),
        ("09:00", "17:00", "2026-06-10 17:00+02:00", 60, 0),
        ("22:00", "06:00", "2026-06-10 21:00+02:00", 600, 8),
        ("22:00", "06:00", "2026-06-10 03:00+02:00", 1440, 8),
        ("22:00", "06:00", "2026-06-10 05:59+02:00", 2, "0.0167"),
        ("20:00", "00:00", "2026-06-10 12:00+02:00", 1440, 4),
        ("00:00", "00:00", "2026-06-10 12:00+02:00", 1440, 24),
        ("08:00", "08:00", "2026-06-10 12:00+02:00", 1440, 24),
        ("23:59", "00:00", "2026-06-10 12:00+02:00", 1440, "0.0167"),
    ],
)
def test_a_window_begins_on_its_minute_and_ends_before_the_other(
    start: str, end: str, begin: str, minutes: int, within: float | str
) -> None:
    assert hours(by_window(start, end), begin, minutes) == Decimal(str(within))


class TestWhenClocksAreChanged:
    # Berlin: 2026-03-29 02:00 -> 03:00 (01:00 UTC), 2026-10-25 03:00 -> 02:00 (01:00 UTC).

    @pytest.mark.parametrize(
        ("start", "end", "within"),
        [
            ("02:00", "03:00", 0),  # never comes
            ("01:30", "02:30", "0.5"),
            ("02:30", "03:30", "0.5"),
            ("01:00", "04:00", 2),
            ("22:00", "06:00", 7),
        ],
    )
    def test_a_window_loses_the_hour_that_is_left_out(self, start: str, end: str, within: float | str) -> None:
        assert hours(by_window(start, end), "2026-03-28 12:00", 1440) == Decimal(str(within))

    @pytest.mark.parametrize(
        ("start", "end", "within"),
        [
            ("02:00", "03:00", 2),  # comes twice
            ("02:15", "02:30", "0.5"),
            ("01:30", "02:30", "1.5"),
            ("02:30", "03:30", "1.5"),
            ("01:00", "04:00", 4),
            ("22:00", "06:00", 9),
        ],
    )
    def test_a_window_holds_the_hour_that_comes_twice_twice(self, start: str, end: str, within: float | str) -> None:
        assert hours(by_window(start, end), "2026-10-24 12:00", 1440) == Decimal(str(within))

    def test_a_session_through_the_change_is_billed_by_real_time(self) -> None:
        per_hour = tariff(element(component("TIME", "6.00")))
        spring = [started(ms("2026-03-29 01:30+01:00"), 0), ended(ms("2026-03-29 03:30+02:00"), 0)]
        autumn = [started(ms("2026-10-25 01:30+02:00"), 0), ended(ms("2026-10-25 03:30+01:00"), 0)]
        assert totals(per_hour, spring)[0] == 6
        assert totals(per_hour, autumn)[0] == 18

    def test_energy_is_split_at_the_instant_of_the_change(self) -> None:
        # 30 kWh from 01:00 to 04:00 by the clock: in spring that is two hours, and 03:00 comes after the first.
        night = by_window("00:00", "03:00")
        spring = session("2026-03-29 00:00", (CHARGING, 120, 30))
        assert totals(night, spring)[0] == 15 + Decimal("1.5") + 1 + Decimal("0.1")
        autumn = session("2026-10-24 23:00", (CHARGING, 240, 40))
        assert totals(night, autumn)[0] == 30 + 1 + 3 + Decimal("0.1")

    def test_a_day_of_23_hours_is_one_day(self) -> None:
        sunday = tariff(element(component("TIME", "1.00"), day_of_week=["SUNDAY"]))
        whole_weekend = session("2026-03-28 00:00", (CHARGING, 4 * 1440, 0))
        assert totals(sunday, whole_weekend)[0] == 23
        assert totals(sunday, session("2026-10-24 00:00", (CHARGING, 4 * 1440, 0)))[0] == 25

    def test_midnight_may_be_the_hour_that_is_left_out(self) -> None:
        # Beirut puts its clocks forward at midnight: the day begins at 01:00.
        sunday = tariff(element(component("TIME", "1.00"), day_of_week=["SUNDAY"]))
        assert totals(sunday, session("2025-03-29 12:00", (CHARGING, 2 * 1440, 0)), "Asia/Beirut")[0] == 23

    def test_half_an_hour_may_be_left_out_too(self) -> None:
        # Lord Howe Island changes by 30 minutes, at 02:00.
        window = by_window("01:00", "04:00")
        assert hours(window, "2026-04-04 12:00", 600, "Australia/Lord_Howe") == Decimal("3.5")
        assert hours(window, "2026-10-03 12:00", 600, "Australia/Lord_Howe") == Decimal("2.5")


class TestDays:
    def test_a_wrapping_window_counts_on_the_day_of_the_instant(self) -> None:
        # 22:00-06:00 on Mondays: Monday 00:00-06:00 and Monday 22:00-24:00, not the small hours of Tuesday.
        monday_night = by_window("22:00", "06:00", day_of_week=["MONDAY"])
        assert hours(monday_night, "2026-06-07 12:00+02:00", 3 * 1440) == 8
        assert hours(monday_night, "2026-06-08 00:00+02:00", 360) == 6
        assert hours(monday_night, "2026-06-09 00:00+02:00", 360) == 0

    def test_dates_begin_at_local_midnight_and_end_before_it(self) -> None:
        two_days = by_window("00:00", "00:00", start_date="2026-06-10", end_date="2026-06-12")
        assert hours(two_days, "2026-06-08 12:00", 7 * 1440) == 48
        assert hours(two_days, "2026-06-09 22:00", 60) == 1
        assert hours(two_days, "2026-06-09 21:00", 60) == 0

    def test_the_zone_decides_which_day_it_is(self) -> None:
        wednesday = by_window("00:00", "00:00", day_of_week=["WEDNESDAY"])
        evening = "2026-06-10 20:00"
        assert hours(wednesday, evening, 120, "UTC") == 2
        assert hours(wednesday, evening, 120, "Asia/Kathmandu") == 0
        assert hours(wednesday, evening, 120, "America/New_York") == 2

    def test_a_price_an_hour_over_three_days(self) -> None:
        elements = [
            element(component("TIME", str(hour)), start_time=f"{hour:02}:00", end_time=f"{(hour + 1) % 24:02}:00")
            for hour in range(24)
        ]
        bill = price(tariff(*elements), session("2026-06-10 00:00+02:00", (CHARGING, 3 * 1440, 30)))
        assert bill.total.excl_tax == 3 * sum(range(24))
        assert len(bill.periods) == 72


class TestTheClock:
    def test_it_knows_the_next_edge_across_a_change(self) -> None:
        clock = local_clock(BERLIN)
        quarter_past_two = (2 * 60 + 15,)
        assert clock.next_edge(ms("2026-03-29 00:00"), quarter_past_two) == ms("2026-03-29 01:00")
        assert clock.next_edge(ms("2026-03-29 01:00"), quarter_past_two) == ms("2026-03-30 00:15")
        first = clock.next_edge(ms("2026-10-25 00:00"), quarter_past_two)
        change = clock.next_edge(first, quarter_past_two)
        second = clock.next_edge(change, quarter_past_two)
        assert [first, change, second] == [
            ms("2026-10-25 00:15"),
            ms("2026-10-25 01:00"),
            ms("2026-10-25 01:15"),
        ]

    def test_an_edge_is_never_now(self) -> None:
        clock = local_clock("UTC")
        assert clock.next_edge(ms("2026-06-10 12:00"), (720,)) == ms("2026-06-11 12:00")
        assert clock.next_edge(ms("2026-06-10 12:00") - 1, (720,)) == ms("2026-06-10 12:00")

    @pytest.mark.parametrize(
        "zone", ["", "Europe", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe/Berlin\0"]
    )
    def test_a_zone_that_there_is_not_is_refused(self, zone: str) -> None:
        with pytest.raises(ValueError, match="IANA"):
            local_clock(zone)
