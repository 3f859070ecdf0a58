"""The pinned archives of the broker."""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path

import pytest
from requests.exceptions import SSLError

from busbar.local import artifacts
from busbar.local.artifacts import Artifact, Distribution, ensure_kafka, is_intact, missing_bytes, pinned_kafka
from busbar.local.errors import StackError


def test_the_list_is_complete_and_pins_every_archive() -> None:
    kafka = pinned_kafka()
    assert kafka.version == "4.3.1"
    assert len(kafka.artifacts) == 46
    assert all(len(artifact.sha256) == 64 and int(artifact.sha256, 16) for artifact in kafka.artifacts)
    assert all(artifact.size_bytes > 1000 for artifact in kafka.artifacts)
    assert len({artifact.file_name for artifact in kafka.artifacts}) == 46
    assert len({artifact.sha256 for artifact in kafka.artifacts}) == 46


def test_the_archives_of_kafka_itself_are_of_one_version() -> None:
    versions = {artifact.version for artifact in pinned_kafka().artifacts if artifact.group == "org.apache.kafka"}
    assert versions == {pinned_kafka().version}


def test_the_list_names_no_host() -> None:
    assert "://" not in artifacts.LOCK_FILE.read_text()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Distribution:
    """A distribution of two small archives."""
    found = Distribution(
        "1",
        tuple(
            Artifact("org.example", name, "1", hashlib.sha256(name.encode()).hexdigest(), len(name))
            for name in ("first", "second")
        ),
    )
    monkeypatch.setattr(artifacts, "pinned_kafka", lambda: found)
    return found


def fetching(contents: dict[str, bytes], fetched: list[str]) -> object:
    """Stands in for the downloads of jgo, with its call: `project(…).at_version(…).artifact().resolve()`."""

    class Context:
        def __init__(self, *, repo_cache: Path, **_: object) -> None:
            self.folder = repo_cache
            self.name = ""

        def project(self, _group: str, name: str) -> Context:
            found = Context(repo_cache=self.folder)
            found.name = name
            return found

        def at_version(self, _version: str) -> Context:
            return self

        def artifact(self) -> Context:
            return self

        def resolve(self) -> Path:
            fetched.append(self.name)
            if self.name not in contents:
                raise ConnectionError("no route")
            path = self.folder / self.name
            path.write_bytes(contents[self.name])
            return path

    return Context


def test_what_is_there_is_not_fetched_again(
    tmp_path: Path, small: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("jgo.maven.MavenContext", fetching({"first": b"first", "second": b"second"}, fetched))
    (tmp_path / "first-1.jar").write_bytes(b"first")
    assert missing_bytes(tmp_path) == len("second")
    paths = ensure_kafka(folder=tmp_path)
    assert fetched == ["second"]
    assert [path.read_bytes() for path in paths] == [b"first", b"second"]
    assert {path.name for path in tmp_path.iterdir()} == {"first-1.jar", "second-1.jar"}
    assert missing_bytes(tmp_path) == 0


def test_a_damaged_archive_is_fetched_again(
    tmp_path: Path, small: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("jgo.maven.MavenContext", fetching({"first": b"first", "second": b"second"}, fetched))
    (tmp_path / "first-1.jar").write_bytes(b"firsT")
    (tmp_path / "second-1.jar").write_bytes(b"second")
    ensure_kafka(folder=tmp_path)
    assert fetched == ["first"]
    assert is_intact(tmp_path / "first-1.jar", small.artifacts[0])


def test_an_archive_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, small: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jgo.maven.MavenContext", fetching({"first": b"first", "second": b"SECOND"}, []))
    with pytest.raises(StackError, match=r"org.example:second:1 as downloaded is not the pinned archive"):
        ensure_kafka(folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"first-1.jar"}


def test_what_was_fetched_before_a_failure_is_kept(
    tmp_path: Path, small: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jgo.maven.MavenContext", fetching({"first": b"first"}, []))
    with pytest.raises(StackError, match=r"cannot download org.example:second:1 .*check the network"):
        ensure_kafka(folder=tmp_path)
    assert missing_bytes(tmp_path) == len("second")


def test_a_proxy_that_the_machine_trusts_is_trusted(
    tmp_path: Path, small: Distribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A company's proxy signs with an authority that is in the system's list only."""
    store = str(tmp_path / "authorities.pem")
    paths = ssl.DefaultVerifyPaths(store, str(tmp_path), "", "", "", "")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")  # so that what is set below is undone
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    fetched: list[str] = []
    usual = fetching({"first": b"first", "second": b"second"}, fetched)

    class Proxied(usual):  # type: ignore[misc, valid-type]
        def resolve(self) -> Path:
            if os.environ.get("REQUESTS_CA_BUNDLE") != store:
                raise SSLError("self-signed certificate in certificate chain")
            path: Path = super().resolve()
            return path

        def project(self, group: str, name: str) -> Proxied:
            found = Proxied(repo_cache=self.folder)
            found.name = name
            return found

    monkeypatch.setattr("jgo.maven.MavenContext", Proxied)
    ensure_kafka(folder=tmp_path / "cache")
    assert missing_bytes(tmp_path / "cache") == 0


def test_a_list_of_authorities_that_somebody_has_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "mine.pem"))
    assert not artifacts.trust_what_the_machine_trusts()
    assert os.environ["REQUESTS_CA_BUNDLE"] == str(tmp_path / "mine.pem")


def test_the_list_is_printed_anew_from_a_folder_of_archives(tmp_path: Path) -> None:
    path = tmp_path / "org" / "example" / "thing" / "1.2" / "thing-1.2.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"jar")
    text = artifacts.lock_text(tmp_path, "4.3.1")
    digest = hashlib.sha256(b"jar").hexdigest()
    assert f'"org.example:thing:1.2" = {{ sha256 = "{digest}", bytes = 3 }}' in text
    assert text.startswith("# The Apache Kafka broker")
