"""Ports on the loopback interface for servers that will be started, stopped and started again.

A port is chosen seconds before its server listens. Until this process ends no other process that uses this module is
given it, so that two stacks which start at the same time do not meet.
"""

from __future__ import annotations

import random
import socket
import sys

_FIRST, _LAST = 15_000, 29_999
"""Below every system's range of outgoing ports: a client that reconnects to a server that is down for a moment could
otherwise be given the server's own port as its source, connect to itself, and keep the server from coming back."""

_reserved: dict[int, socket.socket | None] = {}


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(*preferred: int) -> int:
    """The first preferred port that is free, else some free one. It is not given to anybody else."""
    for port in preferred:
        if _reserve(port):
            return port
    chooser = random.SystemRandom()
    while True:
        port = chooser.randint(_FIRST, _LAST)
        if _reserve(port):
            return port


def release(port: int) -> None:
    """Let `free_port` hand this port out again."""
    reservation = _reserved.pop(port, None)
    if reservation is not None:
        reservation.close()


def _reserve(port: int) -> bool:
    if port in _reserved or not is_free(port):
        return False
    reservation = None
    if sys.platform == "linux":
        # A name that lives no longer than this process, seen by all who share the network.
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0busbar-port-{port}")
        except OSError:
            reservation.close()
            return False
    _reserved[port] = reservation
    return True
