"""Who owns which partition, and how far it has come: leases in the progress rows, shared evenly by heartbeats.

A worker owns a partition *number* of all its group's topics while it holds the lease in that number's progress row.
All lease time is the database's. The row's version is moved by every claim and every commit, so a worker that has
been overtaken (stopped for longer than its lease, say) updates no row: its commit fails as a whole and it produces
nothing. `ProgressStore` has two implementations, PostgreSQL and memory, and one contract suite runs on both.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from busbar.stream.interfaces import Processor

NO_STATE: Final = object()
"""In `ProgressStore.commit`: the rows move, and no state goes with them."""


class StoreUnavailable(Exception):  # noqa: N818 - it names what is the matter
    """The database cannot be used now. Whether the last commit took place is unknown: claim again and see."""


class Overtaken(Exception):  # noqa: N818
    """Other workers hold some of the partitions; nothing of this commit took place."""

    def __init__(self, lost: frozenset[int]) -> None:
        super().__init__(f"partitions lost: {sorted(lost)}")
        self.lost = lost


class Unstorable(Exception):  # noqa: N818
    """The database refuses what a batch holds (a value out of range, a NUL in a text …), and always will."""


@dataclass(frozen=True, slots=True)
class Row:
    """A progress row as others see it."""

    partition: int
    owner: str | None
    free: bool
    """Nobody holds it, or the holder's lease has run out."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a worker needs to know to take its share."""

    rows: Sequence[Row]
    workers: Sequence[str]
    """Those with a fresh heartbeat."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition taken over, with what its last owner left."""

    partition: int
    version: int
    offsets: Mapping[str, int]
    """The next offset to read, by topic. A topic that is absent is read from its start."""
    results: bytes
    """Of the last batch, as `pack_results` wrote them; they may or may not have been produced."""


@dataclass(frozen=True, slots=True)
class Advance:
    """One partition's part in the commit of a batch."""

    partition: int
    version: int
    """As the worker believes it to be; compared and set."""
    offsets: Mapping[str, int]
    """Only of the topics that moved."""
    results: bytes


class ProgressStore(Protocol):
    """The progress rows of one group, as one worker uses them. Every call may raise `StoreUnavailable`."""

    async def open(self, partitions: int) -> None:
        """Connect, or connect again, and make sure that there is a row per partition."""

    async def close(self) -> None:
        """Disconnect."""

    async def survey(self) -> Survey:
        """Look at the rows and the workers."""

    async def keep(self, owned: Mapping[int, int], settled: Collection[int]) -> frozenset[int]:
        """Send a heartbeat and renew the leases of the owned partitions.

        Args:
            owned: Versions by partition.
            settled: Those whose stored results are durable in Kafka, so that nobody need produce them again.

        Returns:
            The partitions that are not ours any more.
        """

    async def claim(self, limit: int, owned: Collection[int]) -> list[Claim]:
        """Take free partitions, at most so many; also those of ours that we forgot (not in `owned`)."""

    async def release(self, owned: Mapping[int, int], settled: Collection[int]) -> None:
        """Give these partitions back before their leases end."""

    async def leave(self) -> None:
        """Take the heartbeat back: the others need not count on us."""

    async def load(self, processor: Processor[Any], events: Sequence[Any], *, beside: bool = False) -> Any:
        """Call `processor.load`; `beside` a commit that is under way if need be."""

    async def due(self, processor: Processor[Any], partitions: Sequence[int], now_ms: int) -> Sequence[Any]:
        """Call `processor.due`."""

    async def commit(self, processor: Processor[Any], state: Any, advances: Sequence[Advance]) -> None:
        """Store the state (unless it is `NO_STATE`) and move the rows, in one transaction.

        Raises:
            Overtaken: Nothing took place, because some partitions are not ours any more.
            Unstorable: Nothing took place, because the database refuses the data.
        """


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker should do now to hold its share."""

    claim: int
    """How many free partitions to take."""
    release: frozenset[int]
    """Which to give back."""


def plan_share(survey: Survey, worker_id: str, owned: Collection[int]) -> Plan:
    """How one worker gets from what it owns to its share.

    Shares are equal but for a remainder, which goes to those who hold the most already (then by worker id), so that as
    few partitions as possible move: of 4 partitions among 3 workers, one keeps 2 and nobody swaps. All workers that see
    the same survey come to plans that fit together.
    """
    if worker_id not in survey.workers:
        return Plan(0, frozenset())
    holdings = dict.fromkeys(survey.workers, 0)
    for row in survey.rows:
        if not row.free and row.owner in holdings:
            holdings[row.owner] += 1
    holdings[worker_id] = len(owned)
    ranking = sorted(holdings, key=lambda worker: (-holdings[worker], worker))
    share, remainder = divmod(len(survey.rows), len(ranking))
    quota = share + (ranking.index(worker_id) < remainder)
    surplus = len(owned) - quota
    if surplus > 0:
        return Plan(0, frozenset(sorted(owned, reverse=True)[:surplus]))
    free = sum(1 for row in survey.rows if row.partition not in owned and (row.free or row.owner == worker_id))
    return Plan(min(-surplus, free), frozenset())


def new_worker_id() -> str:
    """An id that no other start of a process has: a restarted worker is a new one."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
