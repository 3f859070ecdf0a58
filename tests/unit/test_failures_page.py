"""docs/failures.md tells the times and the metrics that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry

from busbar.stream import kafka_consumer, kafka_producer, leases_postgres, worker
from busbar.stream.settings import WorkerSettings
from services.edge import directory
from services.edge.config import EdgeConfig
from services.edge.metrics import EdgeMetrics

ROOT = Path(__file__).resolve().parents[2]
EDGE = EdgeConfig(edge="edge-0", edge_partition=0)
SECONDS = {
    "an owner does not answer a CALL": EDGE.late_seconds,
    "Kafka is away from an edge": EDGE.kafka_grace_seconds,
    "Kafka is away from a processor": WorkerSettings().silence_seconds,
    "a producer hangs": (kafka_producer.KafkaProducer.__init__.__kwdefaults__ or {})["stall_seconds"],
    "a consumer is silent": (kafka_consumer.KafkaConsumer.__init__.__kwdefaults__ or {})["stall_seconds"],
    "PostgreSQL hangs for a processor": leases_postgres.COMMAND_TIMEOUT_SECONDS,
    "PostgreSQL hangs for an edge, or is away": directory.QUERY_SECONDS,
    "a worker is dead": WorkerSettings().lease_seconds,
    "a worker's loop stands still": worker._HUNG_SECONDS,
}
"""What is not here is noticed at once."""


def _rows(part: int = 0) -> dict[str, list[str]]:
    """The cells of the page's table of this number, by failure."""
    lines = (ROOT / "docs" / "failures.md").read_text().split("\n## ")[part].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells if row[0] != "failure"}


def test_the_times_are_those_of_the_code() -> None:
    told = {failure: row[0] for failure, row in _rows().items()}
    assert told == {failure: f"{SECONDS.get(failure, 0):g} s" for failure in told}
    assert SECONDS.keys() <= told.keys()


def test_every_metric_exists() -> None:
    edge = CollectorRegistry()
    EdgeMetrics().register(edge)
    known = {family.name for registry in (REGISTRY, edge) for family in registry.collect()}
    named = {name.removesuffix("_total") for row in _rows().values() for name in re.findall(r"csms_\w+", row[1])}
    assert len(named) > 10
    assert named <= known, named - known


def test_every_failure_names_a_test_that_exists() -> None:
    provoked = _rows(1)
    assert provoked.keys() == _rows().keys()
    for failure, (cell,) in provoked.items():
        names = re.findall(r"`([^`]+)`", cell)
        assert names[0].endswith(".py"), failure
        source = ""
        for name in names:
            if name.endswith(".py"):
                source = (ROOT / "tests" / name).read_text()
            else:
                assert f"def {name}(" in source, name
