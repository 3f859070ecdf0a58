"""Ports for servers that come and go."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from busbar.local.ports import free_port, is_free, release


def test_the_preferred_port_is_taken_if_it_is_free() -> None:
    port = free_port()
    release(port)
    assert free_port(port) == port


def test_another_is_found_if_it_is_not() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        assert not is_free(taken)
        assert free_port(taken) != taken


def test_no_port_is_handed_out_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert free_port(ports[0]) != ports[0]


def test_ports_are_not_among_those_of_outgoing_connections() -> None:
    """A client that reconnects to a server that is down could otherwise be given the server's port, and keep it."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(text.read_text().split()[0]) if text.exists() else 32768
    assert all(free_port() < first for _ in range(50))


def test_another_process_is_not_given_a_port_that_is_reserved_here() -> None:
    """A server may take seconds until it listens."""
    port = free_port()
    code = f"from busbar.local.ports import free_port; print(free_port({port}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_free(port)
    assert int(answer.stdout) != port
    release(port)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == port
