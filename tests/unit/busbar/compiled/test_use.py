"""Compiled modules are used if they are of the sources that lie here, all of them or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from busbar import compiled
from busbar.compiled import PYTHON, ROOT, Manifest, Unusable, hash_of

SOURCE = "busbar/records.py"


def write(folder: Path, **changes: Any) -> Path:
    """A manifest of one module, as `build` leaves it."""
    fields = {"python": PYTHON, "sources": {SOURCE: hash_of(ROOT / SOURCE)}, "modules": {"not_there_yet": "x.so"}}
    (folder / "manifest.json").write_text(json.dumps(fields | changes))
    return folder


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(compiled, "_said", "no")
    monkeypatch.setattr(compiled, "_names", frozenset())
    monkeypatch.delenv(compiled.VARIABLE, raising=False)


def test_modules_of_these_sources_are_found_before_their_sources(tmp_path: Path) -> None:
    compiled.use(write(tmp_path))
    assert compiled.said() == "yes: 1 modules"
    spec = sys.meta_path[0].find_spec("not_there_yet", None)
    assert spec is not None
    assert spec.origin == str(tmp_path / "x.so")
    assert sys.meta_path[0].find_spec("services.sessions.core", None) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"python": "another"}, "they are of another Python"),
        ({"sources": {SOURCE: "0"}}, f"they are older than {SOURCE}"),
        ({"sources": {"busbar/gone.py": "0"}}, "they are older than busbar/gone.py"),
        ({"modules": {}, "problem": "the C compiler says: no"}, "the C compiler says: no"),
        ({"modules": {"busbar.records": "x.so"}}, "busbar.records was imported before"),
        ({"colour": "red"}, "manifest.json: "),
    ],
)
def test_others_are_not(tmp_path: Path, changes: Mapping[str, Any], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import busbar.records  # noqa: F401 - imported, whatever else this process has done

    before = list(sys.meta_path)
    compiled.use(write(tmp_path, **changes))
    assert compiled.said().startswith(f"no: {why}")
    assert sys.meta_path == before
    monkeypatch.setenv(compiled.VARIABLE, "1")
    with pytest.raises(Unusable, match=why.replace(".", r"\.")):
        compiled.use(tmp_path)


def test_where_there_are_none_everything_is_plain(tmp_path: Path) -> None:
    compiled.use(tmp_path)
    assert compiled.said() == "no: there are none"
    with pytest.raises(Unusable):
        Manifest.read(tmp_path)


def test_they_can_be_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiled.VARIABLE, "0")
    compiled.use(write(tmp_path))
    assert compiled.said() == "no: BUSBAR_COMPILED=0"


def test_without_a_compiler_one_line_says_so_and_nothing_fails(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "BUSBAR_COMPILED": ""}
    environment.pop("CC", None)
    command = [sys.executable, "-m", "busbar.compiled.build"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("hot modules: plain Python, somewhat slower; ")
    assert len(said.stdout.splitlines()) == 1
    assert subprocess.run([*command, "--strict"], cwd=ROOT, env=environment, capture_output=True).returncode == 1
