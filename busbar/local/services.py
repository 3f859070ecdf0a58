"""What `busbar up` starts, and on which ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from busbar.local.ports import free_port
from busbar.local.runfile import Edge, ServiceEntry
from busbar.local.supervisor import Rank, ServiceChild

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Kind:
    """A service of Busbar, as it runs here."""

    rank: Rank
    health_port: int
    """The usual port of the first process's health and metrics."""
    listen_variable: str | None = None
    """The setting of the address where it serves others, if it does."""
    listen_port: int | None = None
    nice: int = 0
    """A service that nobody waits for steps back for those that answer stations."""


KINDS: Mapping[str, Kind] = {
    "edge": Kind(Rank.EDGE, 9311, "BUSBAR_EDGE_LISTEN", 9310),
    "router": Kind(Rank.PROCESSOR, 9321),
    "sessions": Kind(Rank.PROCESSOR, 9331),
    "stations": Kind(Rank.PROCESSOR, 9341),
    "billing": Kind(Rank.PROCESSOR, 9351, nice=15),
    "api": Kind(Rank.API, 9411, "BUSBAR_API_LISTEN", 9410),
}
"""Every service, in the order in which they start. Further processes of a kind get the next ports."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service: its ports are chosen, it may not run yet."""

    service: str
    number: int
    health_port: int
    listen_port: int | None

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"

    @property
    def health_url(self) -> str:
        return f"http://{HOST}:{self.health_port}"

    def environment(self) -> dict[str, str]:
        """The settings of this process, over those that all have."""
        settings = {"BUSBAR_HEALTH_ADDRESS": f"{HOST}:{self.health_port}"}
        variable = KINDS[self.service].listen_variable
        if variable is not None:
            settings[variable] = f"{HOST}:{self.listen_port}"
        if self.service == "edge":
            settings |= {"BUSBAR_EDGE_ID": self.name, "BUSBAR_EDGE_PARTITION": str(self.number)}
        return settings

    def child(self, common: Mapping[str, str], logs: Path) -> ServiceChild:
        """The process, not started."""
        return ServiceChild(
            self.name,
            [sys.executable, "-m", f"services.{self.service}"],
            rank=KINDS[self.service].rank,
            log_path=logs / f"{self.name}.log",
            environment={**common, **self.environment()},
            health_url=self.health_url,
            nice=KINDS[self.service].nice,
        )

    def edge(self) -> Edge:
        return Edge(self.name, f"ws://{HOST}:{self.listen_port}/ocpp", self.number)


def instances(counts: Mapping[str, int]) -> list[Instance]:
    """Choose ports for so many processes of each service: the usual ones where they are free."""
    return list(_instances(counts))


def _instances(counts: Mapping[str, int]) -> Iterator[Instance]:
    for service, kind in KINDS.items():
        for number in range(counts.get(service, 1)):
            step = 2 * number if kind.listen_port is not None else number
            listen = None if kind.listen_port is None else free_port(kind.listen_port + step)
            yield Instance(service, number, free_port(kind.health_port + step), listen)


def entry(service: str, child: ServiceChild) -> ServiceEntry:
    """What `run.json` says of a process."""
    return ServiceEntry(
        name=child.name,
        service=service,
        pid=child.process.pid,
        metrics_url=None if child.health_url is None else f"{child.health_url}/metrics",
        log=str(child.process.log_path),
    )
