"""How a worker paces itself."""

from __future__ import annotations

from dataclasses import dataclass

from busbar.config import Env


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The defaults suit production."""

    lease_seconds: float = 6.0
    """How long a partition stays with a worker that is not heard of."""
    poll_seconds: float = 0.25
    """How often to look for partitions to take or to give back."""
    batch_limit: int = 2_000
    """Records folded and committed together, at most."""
    batch_seconds: float = 0.1
    """About as long as a batch is worked on while stations wait for its replies."""
    buffer_limit: int = 2_000
    """Records buffered per topic and partition before its fetching pauses."""
    backlog_seconds: float = 2.0
    """Records that are older are a backlog: their edges and stations do not wait for them any more."""
    idle_seconds: float = 1.0
    """How long the offsets of records that are nothing to the processor wait for a batch to be committed with."""
    ahead_least: int = 100
    """Records that are worth a batch of their own, decoded while another one is being committed."""
    linger_seconds: float = 0.0
    """How long to rest after a batch that was not full: for who is in no hurry, fewer and larger batches cost less."""
    merge_patience_seconds: float = 30.0
    """The longest wait for a topic that is known to lag and brings nothing."""
    due_seconds: float = 1.0
    """How often to ask the processor what has come due."""
    silence_seconds: float = 20.0
    """Without any answer of Kafka for so long, the partitions are given back."""
    stop_seconds: float = 5.0
    """To hand over at the end."""
    tell_seconds: float = 1.0
    """How often the lag is measured."""
    kafka_commit_seconds: float = 5.0
    """How often Kafka is told the offsets, for lag tools."""

    @classmethod
    def from_env(cls, env: Env) -> WorkerSettings:
        """`BUSBAR_LEASE_SECONDS` (default 6), the rest as above."""
        return cls(lease_seconds=env.seconds("BUSBAR_LEASE_SECONDS", 6.0, minimum=0.5))
