"""Settings of the edge, read from the environment."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from busbar.config import ConfigError, Env, database_url, kafka_bootstrap_servers
from busbar.passwords import read_pepper

MAX_FRAME_BYTES = 512 * 1024
"""No station may be allowed more: the record of a frame has to fit into one produce request."""


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Everything that the edge can be told."""

    edge: str
    """The pod's name: BUSBAR_EDGE_ID, else the host name."""
    edge_partition: int
    """The partition of `csms.outbound` that it reads: BUSBAR_EDGE_PARTITION, else the ordinal at the name's end."""
    bootstrap_servers: str = "127.0.0.1:9092"
    database_url: str = "postgresql://127.0.0.1:5432/busbar"
    listen: tuple[str, int] = ("127.0.0.1", 9310)
    path_prefix: str = "/ocpp"
    """Stations connect at `<prefix>/<station>`. `*`: under any path."""
    password_pepper: bytes = b""
    auto_register: bool = False
    """Whether a station that is not in the configuration may connect, without a password."""
    allow_unsecured: bool = False
    """Whether stations of security profile 0 may connect: neither TLS nor a password."""
    tls_terminated: bool = False
    """Whether a proxy in front ends TLS, so that a plain connection counts as security profile 2."""
    max_frame_bytes: int = 256 * 1024
    open_timeout_seconds: float = 10.0
    close_timeout_seconds: float = 10.0
    ping_interval_seconds: float = 60.0
    """A connection from which nothing came for so long is pinged; 0: never."""
    ping_timeout_seconds: float = 30.0
    write_timeout_seconds: float = 30.0
    """A station that does not read what we send for so long is disconnected."""
    late_seconds: float = 20.0
    """Rule 9: after so long the edge gives the minimal answer, if the event is durable."""
    call_timeout_seconds: float = 30.0
    """How long a station may take to answer a command that has no earlier deadline."""
    kafka_grace_seconds: float = 15.0
    """Rule 9: Kafka has to be away for so long before sockets are closed."""
    marker_interval_seconds: float = 3.0
    drain_seconds: float = 20.0
    """Over which time sockets are closed when the process stops."""
    retry_after_seconds: int = 30
    """Of HTTP 503, plus as much again at random."""
    max_unacknowledged_bytes: int = 16 * 1024 * 1024
    """Above this the edge stops reading from sockets."""
    station_cache_seconds: float = 10.0
    flush_interval_seconds: float = 0.005
    """How long events gather before they leave for Kafka; up to twice as long while the process is busy."""

    @classmethod
    def from_env(cls, env: Env) -> EdgeConfig:
        """Read `BUSBAR_EDGE_…` and the settings that all services share. Raises `ConfigError`."""
        edge = env.text("BUSBAR_EDGE_ID", socket.gethostname())
        default = cls(edge=edge, edge_partition=0)
        max_frame_bytes = env.integer("BUSBAR_EDGE_MAX_FRAME_BYTES", default.max_frame_bytes, minimum=1024)
        if max_frame_bytes > MAX_FRAME_BYTES:
            raise ConfigError(f"BUSBAR_EDGE_MAX_FRAME_BYTES: {max_frame_bytes} is above {MAX_FRAME_BYTES}")
        return cls(
            edge=edge,
            edge_partition=env.integer("BUSBAR_EDGE_PARTITION", _ordinal(edge), minimum=0),
            bootstrap_servers=kafka_bootstrap_servers(env),
            database_url=database_url(env),
            listen=env.address("BUSBAR_EDGE_LISTEN", "127.0.0.1:9310"),
            path_prefix=_path_prefix(env.text("BUSBAR_EDGE_PATH", default.path_prefix)),
            password_pepper=read_pepper(env),
            auto_register=env.flag("BUSBAR_AUTO_REGISTER", default.auto_register),
            allow_unsecured=env.flag("BUSBAR_EDGE_ALLOW_UNSECURED", default.allow_unsecured),
            tls_terminated=env.flag("BUSBAR_EDGE_TLS_TERMINATED", default.tls_terminated),
            max_frame_bytes=max_frame_bytes,
            open_timeout_seconds=env.seconds("BUSBAR_EDGE_OPEN_TIMEOUT", default.open_timeout_seconds, minimum=0.1),
            close_timeout_seconds=env.seconds("BUSBAR_EDGE_CLOSE_TIMEOUT", default.close_timeout_seconds, minimum=0.1),
            ping_interval_seconds=env.seconds("BUSBAR_EDGE_PING_INTERVAL", default.ping_interval_seconds),
            ping_timeout_seconds=env.seconds("BUSBAR_EDGE_PING_TIMEOUT", default.ping_timeout_seconds, minimum=1),
            write_timeout_seconds=env.seconds("BUSBAR_EDGE_WRITE_TIMEOUT", default.write_timeout_seconds, minimum=1),
            late_seconds=env.seconds("BUSBAR_EDGE_LATE_SECONDS", default.late_seconds, minimum=0.1),
            call_timeout_seconds=env.seconds("BUSBAR_EDGE_CALL_TIMEOUT", default.call_timeout_seconds, minimum=1),
            kafka_grace_seconds=env.seconds("BUSBAR_EDGE_KAFKA_GRACE", default.kafka_grace_seconds, minimum=1),
            marker_interval_seconds=env.seconds(
                "BUSBAR_EDGE_MARKER_INTERVAL", default.marker_interval_seconds, minimum=0.1
            ),
            drain_seconds=env.seconds("BUSBAR_EDGE_DRAIN_SECONDS", default.drain_seconds),
            retry_after_seconds=env.integer("BUSBAR_EDGE_RETRY_AFTER", default.retry_after_seconds, minimum=1),
            max_unacknowledged_bytes=env.integer(
                "BUSBAR_EDGE_MAX_UNACKNOWLEDGED_BYTES", default.max_unacknowledged_bytes, minimum=1024 * 1024
            ),
            station_cache_seconds=env.seconds("BUSBAR_EDGE_STATION_CACHE", default.station_cache_seconds),
            flush_interval_seconds=env.seconds("BUSBAR_EDGE_FLUSH_INTERVAL", default.flush_interval_seconds),
        )


def _ordinal(edge: str) -> int:
    """The number at the end of a StatefulSet pod's name, 0 if there is none."""
    found = re.search(r"-([0-9]{1,6})$", edge)
    return int(found[1]) if found else 0


def _path_prefix(text: str) -> str:
    if text == "*":
        return text
    prefix = "/" + text.strip("/")
    return "" if prefix == "/" else prefix
