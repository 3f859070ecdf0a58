"""The archives of the Kafka broker: a pinned list, fetched once into the user's cache and checked at every start.

Run as a program with a folder in Maven's repository layout, it prints the list anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from busbar.local.errors import StackError

LOCK_FILE = Path(__file__).with_name("kafka_artifacts.toml")

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of all; from several threads."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One archive, as pinned."""

    group: str
    name: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Distribution:
    """The pinned broker: its version and all its archives."""

    version: str
    artifacts: tuple[Artifact, ...]

    @property
    def size_bytes(self) -> int:
        return sum(artifact.size_bytes for artifact in self.artifacts)


def pinned_kafka() -> Distribution:
    """The list in `kafka_artifacts.toml`."""
    table = tomllib.loads(LOCK_FILE.read_text())
    artifacts = []
    for coordinates, pin in table["artifacts"].items():
        group, name, version = coordinates.split(":")
        artifacts.append(Artifact(group, name, version, pin["sha256"], pin["bytes"]))
    return Distribution(table["kafka"], tuple(artifacts))


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/busbar`, by default `~/.cache/busbar`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "busbar"


def ensure_kafka(progress: Progress | None = None, folder: Path | None = None) -> list[Path]:
    """Fetch what is missing or damaged and return the paths of all archives.

    Each archive appears under its name only after its hash was right, so an interrupted download goes on where it
    was, and two processes may do this at once.

    Raises:
        StackError: An archive could not be fetched, or is not the pinned one.
    """
    kafka = pinned_kafka()
    folder = folder or cache_folder() / f"kafka-{kafka.version}"
    with ThreadPoolExecutor(8) as pool:
        intact = list(pool.map(lambda artifact: is_intact(folder / artifact.file_name, artifact), kafka.artifacts))
    missing = [artifact for artifact, there in zip(kafka.artifacts, intact, strict=True) if not there]
    if missing:
        _fetch(missing, folder, _Counter(kafka, missing, progress))
    return [folder / artifact.file_name for artifact in kafka.artifacts]


def missing_bytes(folder: Path | None = None) -> int:
    """How much `ensure_kafka` would download, by a look at the sizes only."""
    kafka = pinned_kafka()
    folder = folder or cache_folder() / f"kafka-{kafka.version}"
    return sum(
        artifact.size_bytes
        for artifact in kafka.artifacts
        if not (path := folder / artifact.file_name).is_file() or path.stat().st_size != artifact.size_bytes
    )


def is_intact(path: Path, artifact: Artifact) -> bool:
    """Whether the file is there and is the pinned one."""
    try:
        if path.stat().st_size != artifact.size_bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except FileNotFoundError:
        return False


class _Counter:
    """Adds up what the threads have downloaded."""

    def __init__(self, kafka: Distribution, missing: Sequence[Artifact], report: Progress | None) -> None:
        self._total = kafka.size_bytes
        self._done = self._total - sum(artifact.size_bytes for artifact in missing)
        self._report = report

    @contextmanager
    def of_one_file(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield self.add

    def add(self, count: int) -> None:
        self._done += count
        if self._report is not None:
            self._report(min(self._done, self._total), self._total)


def _fetch(missing: Sequence[Artifact], folder: Path, counter: _Counter) -> None:
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
        from requests.exceptions import SSLError
    except ImportError:
        raise StackError(
            "the Kafka broker has to be downloaded, and the package jgo that does it is not installed:"
            " `pip install 'busbar[local]'`, or name a broker with KAFKA_BOOTSTRAP_SERVERS"
        ) from None

    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix="partial-", dir=folder))
    context = MavenContext(
        repo_cache=staging,
        resolver=PythonResolver(progress_callback=counter.of_one_file),
        # A mirror that the user has configured for jgo is used; else Maven's own default.
        remote_repos=GlobalSettings.load().repositories or None,
        timeout=60,
    )

    def fetch(artifact: Artifact) -> None:
        coordinates = context.project(artifact.group, artifact.name).at_version(artifact.version)
        try:
            try:
                path = coordinates.artifact().resolve()
            except SSLError:
                if not trust_what_the_machine_trusts():
                    raise
                path = coordinates.artifact().resolve()
        except Exception as error:
            # jgo raises what its HTTP library raises; whatever it is, the remedy is the same.
            raise StackError(
                f"cannot download {artifact} ({type(error).__name__}): check the network and start again,"
                " what was fetched is kept; or name a broker with KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        if not is_intact(path, artifact):
            raise StackError(
                f"{artifact} as downloaded is not the pinned archive (SHA-256 differs):"
                " start again; if it stays so, the mirror or proxy in between alters files"
            )
        path.replace(folder / artifact.file_name)

    try:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(fetch, artifact) for artifact in missing]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def trust_what_the_machine_trusts() -> bool:
    """Have downloads believe the certificate authorities of the operating system, as pip does.

    The HTTP library trusts a list of its own, which lacks those of a company whose proxy opens connections.

    Returns:
        Whether there is such a list, and nobody has set another.
    """
    paths = ssl.get_default_verify_paths()
    store = paths.cafile or paths.capath
    return store is not None and os.environ.setdefault("REQUESTS_CA_BUNDLE", store) == store


def lock_text(repository: Path, kafka_version: str) -> str:
    """The text of the list for the archives in a folder in Maven's repository layout."""
    lines = []
    for path in repository.rglob("*.jar"):
        *group, name, version, _ = path.relative_to(repository).parts
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        coordinates = f"{'.'.join(group)}:{name}:{version}"
        lines.append(f'"{coordinates}" = {{ sha256 = "{digest}", bytes = {path.stat().st_size} }}')
    head = [line for line in LOCK_FILE.read_text().splitlines() if line.startswith("#")]
    return "\n".join([*head, "", f'kafka = "{kafka_version}"', "", "[artifacts]", *sorted(lines), ""])


def _main(folder: Path) -> str:
    brokers = sorted(folder.glob("org/apache/kafka/kafka_2.13/*/"))
    if len(brokers) != 1:
        raise SystemExit(f"{folder} does not hold exactly one version of org.apache.kafka:kafka_2.13")
    return lock_text(folder, brokers[0].name)


if __name__ == "__main__":
    sys.stdout.write(_main(Path(sys.argv[1])))
