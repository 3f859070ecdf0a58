"""The project as a whole: style, types, generated files, locks, versions, and what must not be in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import busbar
from busbar.local.services import KINDS

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", ".busbar", "build", "dist", "node_modules", "__pycache__"}


def run(*command: str) -> str:
    """Run a module of this Python in the project's folder; its output if it fails, else nothing."""
    answer = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr


def files() -> Iterator[Path]:
    """Every file that is, or will be, checked in. Without git, which a user may not have."""
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            hidden_cache = path.name.startswith(".") and path.name.endswith("_cache")
            if path.name in NOT_OURS or hidden_cache or path.name in (".hypothesis",):
                continue
            if path.is_dir():
                folders.append(path)
            elif path.suffix not in (".pyc", ".png"):
                yield path


def test_the_linter_has_nothing_to_say() -> None:
    assert run("ruff", "check", "--no-cache", "--output-format", "concise") == ""


def test_the_code_is_formatted() -> None:
    assert run("ruff", "format", "--check", "--no-cache") == ""


def test_the_types_hold() -> None:
    assert run("mypy") == ""


def test_the_generated_schemas_and_pages_are_current() -> None:
    assert run("busbar.avro.generate", "--check") == ""


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@cache
def locked(name: str) -> dict[str, str]:
    """Versions by package name."""
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ \\;]+)", (ROOT / name).read_text()))


def declared(extras: bool) -> list[Requirement]:
    """The dependencies of pyproject.toml."""
    table = project()
    texts: list[str] = list(table["dependencies"])  # type: ignore[call-overload]
    if extras:
        for more in table["optional-dependencies"].values():  # type: ignore[attr-defined]
            texts += more
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", False), ("requirements-dev.lock", True)])
def test_the_lock_satisfies_every_declared_dependency(lock: str, extras: bool) -> None:
    for requirement in declared(extras):
        version = locked(lock).get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {lock}: make lock"
        assert requirement.specifier.contains(version), f"{lock} has {version} for {requirement}: make lock"


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", False), ("requirements-dev.lock", True)])
def test_the_lock_holds_what_its_packages_need_and_nothing_else(lock: str, extras: bool) -> None:
    """As far as this Python and platform tell; markers of others are not looked at."""
    needed: set[str] = set()
    waiting = [(canonicalize_name(requirement.name), requirement.extras) for requirement in declared(extras)]
    while waiting:
        name, its_extras = waiting.pop()
        if name in needed and not its_extras:
            continue
        needed.add(name)
        assert name in locked(lock), f"{name} is needed and not in {lock}: make lock"
        try:
            found = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} of {lock} is not installed: touch {lock} && make run or make test installs it")
        for text in found.requires or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *its_extras)):
                waiting.append((canonicalize_name(requirement.name), requirement.extras))
    conditional = set(re.findall(r"(?m)^([a-z0-9-]+)==[^ ;]+ ;", (ROOT / lock).read_text()))
    assert set(locked(lock)) - needed - conditional == set()


def test_the_lock_of_the_image_is_part_of_the_lock_of_developers() -> None:
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_is_pinned_by_hashes(lock: str) -> None:
    entries = re.split(r"(?m)^(?=[a-z0-9])", (ROOT / lock).read_text())
    for entry in filter(None, (part.strip() for part in entries)):
        assert "--hash=sha256:" in entry, entry.partition("\n")[0]


def test_no_file_names_the_host_of_a_package_registry() -> None:
    hosts = "|".join(
        re.escape(".".join(parts))
        for parts in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("maven", "org"),
            ("maven", "apache", "org"),
            ("registry", "npmjs", "org"),
            ("npmjs", "com"),
            ("proxy", "golang", "org"),
            ("crates", "io"),
            ("deb", "debian", "org"),
        )
    )
    found = [f"{path.relative_to(ROOT)}: {line}" for path, line in lines_with(hosts)]
    assert found == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    places = r"(?<![\w.-])/(?:" + "|".join(("work", "root", r"home/\w+", r"Users/\w+")) + r")/[\w.]"
    found = [f"{path.relative_to(ROOT)}: {line}" for path, line in lines_with(places)]
    assert found == []


def lines_with(pattern: str) -> Iterator[tuple[Path, str]]:
    expression = re.compile(pattern)
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if expression.search(text):
            for line in text.splitlines():
                if expression.search(line):
                    yield path, line.strip()[:160]


def test_every_make_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"(?m)^\.PHONY: (.+)$", makefile)
    assert phony is not None
    explained = set(re.findall(r"(?m)^([a-z]+):.*## \S", makefile))
    assert explained == set(phony[1].split())


def test_the_version_is_the_same_everywhere() -> None:
    assert project()["version"] == busbar.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"(?m)^## \[?(\d+\.\d+\.\d+)", changelog)
    assert not versions or versions[0] == busbar.__version__
    for chart in ROOT.glob("helm/*/Chart.yaml"):
        assert re.search(rf'(?m)^appVersion: "?{re.escape(busbar.__version__)}"?$', chart.read_text()), chart


def test_the_build_runs_the_test_command_of_the_readme_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "exec make test </dev/null" in script
    assert re.search(r"(?m)^make test\b", (ROOT / "README.md").read_text())
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_busbar_up_starts_every_service_there_is() -> None:
    assert set(KINDS) == {path.parent.name for path in ROOT.glob("services/*/__main__.py")}


def test_every_test_folder_is_a_package() -> None:
    """Two test modules of one name in folders that are none would hide each other."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
