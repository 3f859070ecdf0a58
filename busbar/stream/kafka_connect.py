"""How long to try to connect: a node that hangs must not keep anybody from the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator


def connect_timeouts() -> Iterator[float]:
    """Seconds for each attempt, one after the other.

    A client tries the nodes in random order, and one that hangs (it takes connections and says nothing) uses up all of
    an attempt. So the first attempts are short; the later ones suit a cluster that is merely slow.
    """
    return itertools.chain((3.0, 6.0), itertools.repeat(10.0))
