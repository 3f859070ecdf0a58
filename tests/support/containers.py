"""Kafka and PostgreSQL from a Docker engine, for `--broker=containers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from busbar.local.artifacts import pinned_kafka
from busbar.local.ports import free_port

POSTGRES_IMAGE = "postgres:18-alpine"


@contextmanager
def kafka() -> Iterator[str]:
    """A one-node broker of the version that is pinned for local use; yields its bootstrap servers."""
    _require_engine()
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.docker_client import DockerClient
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()  # the same inside and outside, because the broker tells clients its own address
    container = DockerContainer(f"apache/kafka:{pinned_kafka().version}").with_bind_ports(port, port)
    host = DockerClient().host()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    for name, value in settings.items():
        container = container.with_env(name, value)
    container = container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))
    with container:
        yield f"{host}:{port}"


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; yields the URL of its maintenance database."""
    _require_engine()
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, dbname="postgres", driver=None) as container:
        yield container.get_connection_url()


def _require_engine() -> None:
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient

    try:
        DockerClient().client.ping()
    except DockerException as error:
        pytest.exit(
            f"--broker=containers needs a Docker engine, and none answers ({type(error).__name__}): start one, set"
            " DOCKER_HOST, or leave the option out to use the servers of this machine",
            returncode=4,
        )
