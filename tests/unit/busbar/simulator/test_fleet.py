"""Who is in a fleet, and `busbar simulate` as far as it needs no edge."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from busbar.cli import main
from busbar.config import ConfigError
from busbar.ocpp.versions import Version
from busbar.simulator.fleet import (
    DEFAULT_MIX,
    Credentials,
    make_stations,
    members,
    parse_mix,
    read_credentials,
    read_memories,
    version_of,
    write_memories,
)
from busbar.simulator.plan import Behaviour, Visits, stream
from busbar.simulator.report import percentile
from busbar.simulator.station import StationSettings
from busbar.simulator.tally import Tally


def test_a_mix_is_read_as_shares() -> None:
    assert parse_mix("1.6=40, 2.0.1=40,2.1=20") == {Version.V16: 40, Version.V201: 40, Version.V21: 20}
    assert parse_mix("2.1") == {Version.V21: 1}


@pytest.mark.parametrize("text", ["", "1.5=10", "1.6=x", "1.6=-1,2.1=2", "1.6=0"])
def test_a_mix_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--mix"):
        parse_mix(text)


@given(st.integers(0, 2**31), st.integers(20, 300))
def test_the_shares_hold_at_any_size(seed: int, size: int) -> None:
    counts = Counter(version_of(position, DEFAULT_MIX, seed) for position in range(size))
    for version, share in DEFAULT_MIX.items():
        assert abs(counts[version] - size * share / 100) <= 3


def test_a_station_keeps_its_version_when_the_fleet_grows() -> None:
    small, large = (members(size, seed=7, mix=DEFAULT_MIX) for size in (10, 100))
    assert large[:10] == small


def test_credentials_are_read_in_both_forms(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps([{"station_id": "A", "password": "p", "version": "2.1"}]))
    assert read_credentials(path).stations == (("A", "p", Version.V21),)
    path.write_text(json.dumps({"stations": [{"station_id": "A", "password": "p"}], "id_tokens": ["T"]}))
    found = read_credentials(path)
    assert found == Credentials((("A", "p", None),), ("T",))
    (member,) = members(1, seed=1, mix={Version.V16: 1}, credentials=found)
    assert (member.station_id, member.password, member.version) == ("A", "p", Version.V16)


@pytest.mark.parametrize("text", ["{", "[]x", '{"stations": [{}]}', "5", '[{"station_id": "A", "version": "9"}]'])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fleet.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"fleet\.json"):
        read_credentials(path)


def test_more_stations_than_the_file_has_are_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match="busbar up --fleet 2"):
        members(2, seed=1, mix=DEFAULT_MIX, credentials=Credentials((("A", "p", None),), ()))


def test_registers_outlive_a_run_and_those_of_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"OTHER": {"1": 5.0}}')
    settings = StationSettings(seed=1, tokens=("T",))
    stations = make_stations(members(3, seed=1, mix=DEFAULT_MIX), settings, Tally(), started_at=0.0)
    write_memories(path, stations, 0.0)
    kept = read_memories(path)
    assert kept["OTHER"].registers_wh == {1: 5.0}
    for station in stations:
        assert kept[station.station_id].registers_wh == {each.number: each.register_wh for each in station.outlets}
    assert read_memories(tmp_path / "absent.json") == {}


def test_a_broken_state_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("[]")
    with pytest.raises(ConfigError, match="remove it"):
        read_memories(path)


def test_drivers_come_from_the_seed_and_the_outlet_alone() -> None:
    def drivers(*names: object) -> list[object]:
        visits = Visits(stream(7, *names), ("A", "B"), Behaviour(), direct_current=True)
        return [visits.next() for _ in range(20)]

    assert drivers("CS-1", 1) == drivers("CS-1", 1)
    assert drivers("CS-1", 1) != drivers("CS-1", 2)
    assert drivers("CS-1", 1) != drivers("CS-2", 1)


def test_percentiles_of_nothing_and_of_something() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3.0


def test_simulate_says_what_it_lacks() -> None:
    result = CliRunner().invoke(main, ["simulate"])
    assert result.exit_code == 2
    assert "--run-file" in result.output


def test_simulate_without_an_edge_ends_with_its_own_exit_code() -> None:
    url = "ws://127.0.0.1:9/ocpp"
    result = CliRunner().invoke(main, ["simulate", "--url", url, "--stations", "2", "--duration", "0.5", "--json"])
    assert result.exit_code == 3, result.output
    assert f"no station could connect to {url}" in result.output
