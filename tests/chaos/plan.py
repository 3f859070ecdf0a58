"""What is done to the system, and when: a plan that a seed makes anew, word for word."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE_SECONDS = 3.0
"""The lease that the rig gives the processors; a pause must be able to outlast it."""

PROCESSORS = ("sessions", "stations", "router", "billing")
LASTING = ("pause", "hole")
"""Kinds of faults that end by themselves."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens to one process, or to the line between two parties."""

    at_seconds: float
    kind: str
    """What is done to a process: `kill` (SIGKILL), `stop` (SIGTERM; SIGINT for PostgreSQL, to which
    SIGTERM means to wait for its clients), after both of which the supervisor starts it
    again, or `pause` (SIGSTOP, then SIGCONT). To a line: `cut` (reset) or `hole` (it stays open, and nothing passes).
    """
    role: str
    """The process's role; which of several is the plan's `pick`. `leader` is the node that leads a busy partition,
    `fleet` is where stations connect from."""
    pick: int
    to: str = ""
    """The line's other side: `postgres`, `kafka` (every node), `node` (one of them) or, from the fleet, `edge`."""
    seconds: float = 0.0
    """How long a pause or a hole lasts."""

    @property
    def what(self) -> str:
        """The fault without its hour, for counting."""
        return f"{self.kind} {self.role}{'-' if self.to else ''}{self.to}"

    def __str__(self) -> str:
        length = f" for {self.seconds:.1f} s" if self.kind in LASTING else ""
        return f"{self.at_seconds:6.1f} s  {self.what} [{self.pick}]{length}"


_WEIGHTS: dict[tuple[str, str, str], float] = {
    ("kill", "sessions", ""): 5,
    ("pause", "sessions", ""): 4,
    ("stop", "sessions", ""): 2,
    ("kill", "stations", ""): 2,
    ("pause", "stations", ""): 1,
    ("stop", "stations", ""): 1,
    ("kill", "router", ""): 2,
    ("pause", "router", ""): 2,
    ("stop", "router", ""): 1,
    ("kill", "billing", ""): 3,
    ("pause", "billing", ""): 1.5,
    ("stop", "billing", ""): 1,
    ("kill", "edge", ""): 3,
    ("pause", "edge", ""): 2,
    ("stop", "edge", ""): 2,
    ("kill", "api", ""): 1,
    ("stop", "api", ""): 0.5,
    ("kill", "postgres", ""): 1.5,
    ("pause", "postgres", ""): 1,
    ("stop", "postgres", ""): 0.5,
    **{
        (kind, role, to): weight
        for role, weight in (
            ("sessions", 1.7),
            ("stations", 0.8),
            ("router", 0.8),
            ("billing", 0.8),
            ("edge", 1.0),
            ("api", 0.3),
        )
        for to in ("postgres", "kafka")
        for kind in ("cut", "hole")
    },
    ("cut", "fleet", "edge"): 2,
    ("hole", "fleet", "edge"): 2,
}
"""How often what happens to whom, relative to one another."""
_ONE_NODE: dict[tuple[str, str, str], float] = {
    ("kill", "kafka", ""): 1.5,
    ("pause", "kafka", ""): 1,
    ("stop", "kafka", ""): 0.5,
}
_THREE_NODES: dict[tuple[str, str, str], float] = {
    ("kill", "kafka", ""): 2,
    ("kill", "leader", ""): 3,
    ("pause", "leader", ""): 2,
    ("stop", "kafka", ""): 1,
    ("hole", "sessions", "node"): 1,
    ("hole", "edge", "node"): 1.5,
    ("cut", "edge", "node"): 0.5,
}


def make_plan(seed: int, faults: int, mean_interval_seconds: float, nodes: int = 1) -> list[Fault]:
    """A plan of so many faults for a system with so many Kafka nodes; with the same seed the same plan."""
    source = random.Random(f"plan/{seed}/{nodes}")
    weights = {**_WEIGHTS, **(_THREE_NODES if nodes > 1 else _ONE_NODE)}
    plan = []
    at = 1.0
    for _ in range(faults):
        kind, role, to = source.choices(list(weights), list(weights.values()))[0]
        seconds = 0.0
        if kind in LASTING:
            # Half of them outlast a lease: the process wakes up overtaken. A few outlast all patience: an edge without
            # Kafka closes its sockets after 15 s, answers in the place of others after 20 s; a worker retires then.
            lengths = [source.uniform(0.3, 2.0), source.uniform(1.2, 2.2) * LEASE_SECONDS, source.uniform(16, 25)]
            seconds = source.choices(lengths, (6, 6, 1))[0]
        plan.append(Fault(at, kind, role, source.randrange(8), to, seconds))
        at += source.expovariate(1 / mean_interval_seconds)
    return plan
