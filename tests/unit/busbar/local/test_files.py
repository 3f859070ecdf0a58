"""The files of a stack: run file, secrets, fleet, and their removal."""

from __future__ import annotations

import base64
import fcntl
import stat
from pathlib import Path

import pytest

from busbar.local import clean as cleaning
from busbar.local.errors import StackError
from busbar.local.fleet import Fleet, ensure_fleet
from busbar.local.runfile import RunFile
from busbar.local.secrets import ensure_admin_key, ensure_pepper
from busbar.local.services import KINDS, instances
from busbar.local.supervisor import Rank
from tests.unit.busbar.local.test_view import RUN


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_run_file_reads_back_and_is_for_its_owners_eyes_only(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    path.chmod(0o644)
    RUN.write(path)
    assert RunFile.read(path) == RUN
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_where_nothing_runs_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"nothing runs here, start it with `busbar up`"):
        RunFile.read(tmp_path / "run.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"busbar": "0.1.0"}'])
def test_a_run_file_of_another_version_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StackError, match=r"cannot be read .*: start `busbar up` again"):
        RunFile.read(tmp_path / "run.json")


def test_the_admin_key_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "new" / "admin.key"
    key = ensure_admin_key(path)
    scheme, key_id, secret = key.split("_", 2)
    assert scheme == "bsb"
    assert key_id
    assert len(secret) == 64
    assert ensure_admin_key(path) == key == path.read_text().strip()
    assert mode(path) == 0o600


def test_a_file_that_holds_no_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("bsb_x_short\n")
    with pytest.raises(StackError, match="is not an API key"):
        ensure_admin_key(tmp_path / "admin.key")


def test_the_pepper_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    pepper = ensure_pepper(path)
    assert len(pepper) == 32
    assert base64.b64decode(path.read_text()) == pepper == ensure_pepper(path)
    assert mode(path) == 0o600


@pytest.mark.parametrize("text", ["", "not base64!", "c2hvcnQ="])
def test_a_damaged_pepper_is_not_replaced_silently(tmp_path: Path, text: str) -> None:
    """Every generated password would be worth nothing."""
    (tmp_path / "pepper").write_text(text)
    with pytest.raises(StackError, match="is not a pepper"):
        ensure_pepper(tmp_path / "pepper")
    assert (tmp_path / "pepper").read_text() == text


def test_the_fleet_grows_and_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    small = ensure_fleet(path, 3)
    assert [station.station_id for station in small.stations] == ["DEMO-0001", "DEMO-0002", "DEMO-0003"]
    assert len(set(small.id_tokens)) == 6
    large = ensure_fleet(path, 5)
    assert large.stations[:3] == small.stations
    assert large.id_tokens[:6] == small.id_tokens
    assert ensure_fleet(path, 2) == large == Fleet.read(path)
    assert mode(path) == 0o600
    assert len({station.password for station in large.stations}) == 5


def test_the_fleets_tokens_fit_the_id_tags_of_1_6(tmp_path: Path) -> None:
    assert all(len(token) <= 20 for token in ensure_fleet(tmp_path / "fleet.json", 2000).id_tokens)


def test_clean_removes_what_a_stack_has_written(tmp_path: Path) -> None:
    folder = tmp_path / ".busbar"
    (folder / "kafka").mkdir(parents=True)
    (folder / "lock").write_text("1\n")
    assert cleaning.main([str(folder)]) == 0
    assert not folder.exists()
    assert cleaning.main([str(folder)]) == 0


def test_clean_leaves_a_running_stack_alone(tmp_path: Path) -> None:
    folder = tmp_path / ".busbar"
    folder.mkdir()
    with open(folder / "lock", "w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cleaning.main([str(folder)]) == f"busbar runs in {folder}: stop it first (`kill 4711`)"
    assert folder.exists()


def test_clean_leaves_other_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    assert "was not made by `busbar up`" in str(cleaning.main([str(tmp_path)]))
    assert (tmp_path / "precious").exists()


def test_every_process_has_ports_of_its_own() -> None:
    found = instances({"edge": 3, "sessions": 2})
    ports = [port for one in found for port in (one.health_port, one.listen_port) if port is not None]
    assert len(ports) == len(set(ports))
    assert [one.name for one in found if one.service == "edge"] == ["edge-0", "edge-1", "edge-2"]
    assert {one.service for one in found} == set(KINDS)


def test_each_edge_has_its_own_name_partition_and_address() -> None:
    edges = [one for one in instances({"edge": 2}) if one.service == "edge"]
    settings = [one.environment() for one in edges]
    assert [one["BUSBAR_EDGE_ID"] for one in settings] == ["edge-0", "edge-1"]
    assert [one["BUSBAR_EDGE_PARTITION"] for one in settings] == ["0", "1"]
    assert len({one["BUSBAR_EDGE_LISTEN"] for one in settings}) == 2
    assert edges[1].edge().url == f"ws://{settings[1]['BUSBAR_EDGE_LISTEN']}/ocpp"


def test_who_asks_stops_before_who_answers() -> None:
    order = [Rank.SIMULATOR, KINDS["api"].rank, KINDS["edge"].rank, KINDS["sessions"].rank, Rank.KAFKA, Rank.POSTGRES]
    assert order == sorted(set(order))
