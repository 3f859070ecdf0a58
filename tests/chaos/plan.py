"""What is done to the system, and when: a plan that a seed makes anew, word for word."""

from __future__ import annotations

import random
from dataclasses import dataclass

LEASE_SECONDS = 3.0
"""The lease that the rig gives the processors; a pause must be able to outlast it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens to one process."""

    at_seconds: float
    kind: str
    """`kill` (SIGKILL), `pause` (SIGSTOP, then SIGCONT) or `stop` (SIGTERM). The supervisor starts it again."""
    role: str
    """The process's role; which of several is the plan's `pick`."""
    pick: int
    seconds: float = 0.0
    """How long a pause lasts."""

    def __str__(self) -> str:
        length = f" for {self.seconds:.1f} s" if self.kind == "pause" else ""
        return f"{self.at_seconds:6.1f} s  {self.kind} {self.role}[{self.pick}]{length}"


_WEIGHTS = {
    ("kill", "sessions"): 5,
    ("pause", "sessions"): 4,
    ("stop", "sessions"): 2,
    ("kill", "stations"): 2,
    ("pause", "stations"): 1,
    ("kill", "router"): 2,
    ("pause", "router"): 1,
    ("kill", "edge"): 3,
    ("pause", "edge"): 2,
    ("stop", "edge"): 2,
    ("kill", "api"): 1,
    ("kill", "kafka"): 1,
    ("pause", "kafka"): 1,
    ("kill", "postgres"): 1,
    ("pause", "postgres"): 1,
}
"""How often what happens to whom, relative to one another."""


def make_plan(seed: int, faults: int, mean_interval_seconds: float) -> list[Fault]:
    """A plan of so many faults, with the same seed the same plan."""
    source = random.Random(f"plan/{seed}")
    kinds = list(_WEIGHTS)
    weights = list(_WEIGHTS.values())
    plan = []
    at = 1.0
    for _ in range(faults):
        kind, role = source.choices(kinds, weights)[0]
        seconds = 0.0
        if kind == "pause":
            # Half of the pauses outlast a lease: the process wakes up overtaken.
            seconds = source.choice([source.uniform(0.3, 2.0), source.uniform(1.2, 2.2) * LEASE_SECONDS])
        plan.append(Fault(at, kind, role, source.randrange(8), seconds))
        at += source.expovariate(1 / mean_interval_seconds)
    return plan
