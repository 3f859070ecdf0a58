"""`run.json`: what runs, where, and how to reach it; for `busbar simulate`, scripts and tests."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from busbar.local.errors import StackError


@dataclass(frozen=True, slots=True)
class Server:
    """Kafka or PostgreSQL."""

    url: str
    """Bootstrap servers of Kafka; the URL of the database, password included."""
    embedded: bool
    """Whether `busbar up` started it, or was pointed to it."""
    pids: tuple[int | None, ...] = ()
    """Of its processes: Kafka has one per node, in the order of their ids. `None`: it does not run at the moment."""


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge process, where stations connect."""

    id: str
    url: str
    """`ws://HOST:PORT/ocpp`; a station appends `/` and its id."""
    partition: int
    """Its partition of `csms.outbound`."""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One process of a service, or the simulator."""

    name: str
    """Such as `sessions-1`."""
    service: str
    pid: int | None
    metrics_url: str | None
    """`None`: it has no metrics."""
    log: str


@dataclass(frozen=True, slots=True)
class RunFile:
    """The content of `run.json`. Paths are absolute."""

    busbar: str
    """The version."""
    pid: int
    """Of `busbar up`: SIGTERM stops everything."""
    started_at: str
    logs: str
    kafka: Server
    postgres: Server
    api_url: str
    admin_key_path: str
    """A file with the API key of the role `admin`."""
    fleet_path: str | None
    """The demo fleet: see `busbar.local.fleet`."""
    edges: tuple[Edge, ...]
    services: tuple[ServiceEntry, ...]

    def write(self, path: Path) -> None:
        """Write it at once and for the owner's eyes only: it holds the database's password."""
        temporary = path.with_name(path.name + ".new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
        temporary.replace(path)

    @property
    def admin_key(self) -> str:
        """The API key of the role `admin`."""
        return Path(self.admin_key_path).read_text().strip()

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """Read the file that a running stack has written.

        Raises:
            StackError: Nothing runs there, or the file is of another version.
        """
        try:
            table: dict[str, Any] = json.loads(path.read_text())
            return cls(
                busbar=table["busbar"],
                pid=table["pid"],
                started_at=table["started_at"],
                logs=table["logs"],
                kafka=_server(table["kafka"]),
                postgres=_server(table["postgres"]),
                api_url=table["api_url"],
                admin_key_path=table["admin_key_path"],
                fleet_path=table["fleet_path"],
                edges=tuple(Edge(**edge) for edge in table["edges"]),
                services=tuple(ServiceEntry(**service) for service in table["services"]),
            )
        except FileNotFoundError:
            raise StackError(f"no {path}: nothing runs here, start it with `busbar up`") from None
        except (ValueError, KeyError, TypeError) as error:
            raise StackError(f"{path} cannot be read ({error}): start `busbar up` again") from error


def _server(table: dict[str, Any]) -> Server:
    return Server(table["url"], table["embedded"], tuple(table["pids"]))
