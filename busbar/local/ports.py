"""Ports on the loopback interface for servers that will be started, stopped and started again."""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 15_000, 29_999
"""Below every system's range of outgoing ports: a client that reconnects to a server that is down for a moment could
otherwise be given the server's own port as its source, connect to itself, and keep the server from coming back."""

_taken: set[int] = set()


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
    """The first preferred port that is free, else some free one. This process is never given a port twice."""
    for port in preferred:
        if port not in _taken and is_free(port):
            _taken.add(port)
            return port
    chooser = random.SystemRandom()
    while True:
        port = chooser.randint(_FIRST, _LAST)
        if port not in _taken and is_free(port):
            _taken.add(port)
            return port


def release(port: int) -> None:
    """Let `free_port` hand this port out again."""
    _taken.discard(port)
