"""The edge process: listens for stations, and runs what goes on beside them."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from busbar.config import ConfigError, Env
from busbar.records import TopicPartition
from busbar.service import Health
from busbar.stream.interfaces import Consumer, Producer
from busbar.stream.kafka import KafkaConsumer, KafkaProducer
from busbar.topics import all_topics, topics_written_by
from services.edge.clock import Clock
from services.edge.config import EdgeConfig
from services.edge.credentials import FailureLimit, PasswordChecker
from services.edge.directory import PostgresSource, Source, StationDirectory
from services.edge.door import Door
from services.edge.hub import BUCKETS, SWEEP_SECONDS, Hub
from services.edge.metrics import EdgeMetrics
from services.edge.protocol import StationProtocol
from services.edge.records import OUTBOUND_TOPIC

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""Of the listening socket: a storm of reconnecting stations arrives at once."""
LOOP_PROBE_SECONDS = 0.1
TICK_SECONDS = 0.05
"""How often paused sockets are looked at."""
CLOSE_STEP_SECONDS = 0.05
CLOSE_STEP_SOCKETS = 10
"""At least: a handful of sockets is closed within the blink of an eye."""
OUTAGE_CLOSE_SECONDS = 10.0
"""Over which time all sockets are closed when Kafka is away."""
RETRY_SECONDS = 2.0
SLOW_HASH_THREADS = 2
STUCK_SECONDS = 600.0
"""All sockets are long closed then, so a restart costs nothing and may help."""


@dataclass(slots=True)
class Edge:
    """An edge that listens."""

    hub: Hub
    directory: StationDirectory
    addresses: list[tuple[str, int]] = field(default_factory=list)
    problem: str | None = "starting"
    """Why it cannot work yet."""


async def run(env: Env, health: Health, stop: asyncio.Event) -> None:
    """Run the edge with the settings of the environment until `stop`."""
    config = EdgeConfig.from_env(env)
    source = PostgresSource(config.database_url)
    producer = KafkaProducer(
        config.bootstrap_servers, flush_interval_seconds=config.flush_interval_seconds, client_id=config.edge
    )
    consumer = KafkaConsumer(config.bootstrap_servers, client_id=config.edge)
    metrics = EdgeMetrics()
    metrics.register()
    try:
        async with make_edge(config, producer, source, metrics) as edge:
            _register_checks(edge, health)
            _tune_garbage_collection()
            if await _unless_stopped(stop, _reach_kafka(edge, producer, consumer)):
                await serve(edge, consumer, health, stop)
    finally:
        await consumer.stop()
        await producer.stop()
        await source.close()


@asynccontextmanager
async def make_edge(
    config: EdgeConfig,
    producer: Producer,
    source: Source,
    metrics: EdgeMetrics,
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Edge]:
    """An edge that listens, and refuses everybody until the way through Kafka is proven (see `serve`)."""
    loop, clock = asyncio.get_running_loop(), Clock()
    with ThreadPoolExecutor(SLOW_HASH_THREADS, thread_name_prefix="passwords") as threads:
        directory = StationDirectory(source, fresh_seconds=config.station_cache_seconds, clock=loop.time)
        door = Door(
            directory,
            PasswordChecker(config.password_pepper, threads, loop.call_soon_threadsafe),
            FailureLimit(),
            clock=loop.time,
            auto_register=config.auto_register,
            allow_unsecured=config.allow_unsecured,
        )
        hub = Hub(config, producer, door, metrics, clock)
        host, port = config.listen
        server = await loop.create_server(lambda: StationProtocol(hub), host, port, backlog=BACKLOG, ssl=tls)
        edge = Edge(hub, directory, [sock.getsockname()[:2] for sock in server.sockets])
        hub.address = ",".join(f"{host}:{port}" for host, port in edge.addresses)
        logger.info("listening for stations", extra={"address": hub.address, "edge": config.edge})
        try:
            yield edge
        finally:
            server.close()
            for protocol in hub.all_sockets():
                protocol.abort()


async def _reach_kafka(edge: Edge, producer: KafkaProducer, consumer: KafkaConsumer) -> None:
    """Reach Kafka, however long it takes, and wait until every topic that is needed exists."""
    edge.problem = "Kafka has not been reached yet"
    await producer.start([*topics_written_by("edge"), OUTBOUND_TOPIC])
    while (problem := await topics_problem(producer, edge.hub.config.edge_partition)) is not None:
        edge.problem = problem
        logger.warning(problem)
        await asyncio.sleep(RETRY_SECONDS)
    edge.problem = "the outbound topic has not been read yet"
    await consumer.start()
    await attach(edge, consumer)


async def attach(edge: Edge, consumer: Consumer) -> None:
    """Read our partition of `csms.outbound` from its end."""
    own = TopicPartition(OUTBOUND_TOPIC, edge.hub.config.edge_partition)
    while True:
        try:
            await consumer.assign({own: None})
        except TimeoutError as error:
            edge.problem = f"the outbound topic cannot be read: {error}"
            logger.warning(edge.problem)
            await asyncio.sleep(RETRY_SECONDS)
        else:
            edge.problem = None
            return


async def _unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work; returns `False` at once if `stop` is set before it is done."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return not stop.is_set()
        return False
    finally:
        working.cancel()
        stopping.cancel()


async def topics_problem(producer: Producer, edge_partition: int) -> str | None:
    """What is wrong with the topics, if they are not all there.

    Raises:
        ConfigError: They are there, and cannot be used: a restart does not help.
    """
    counts: dict[str, set[int]] = {}
    for name in [*topics_written_by("edge"), OUTBOUND_TOPIC]:
        count = producer.partitions(name) or await producer.refresh(name)
        if not count:
            return f"the topic {name} does not exist: create the topics first"
        counts.setdefault(all_topics()[name].partition_group, set()).add(count)
    outbound = producer.partitions(OUTBOUND_TOPIC) or 0
    if edge_partition >= outbound:
        raise ConfigError(f"BUSBAR_EDGE_PARTITION: {edge_partition}, but {OUTBOUND_TOPIC} has {outbound} partitions")
    for group, found in counts.items():
        if len(found) > 1:
            raise ConfigError(
                f"the topics of the group {group} differ in partitions ({sorted(found)}): make them equal"
            )
    return None


async def serve(edge: Edge, consumer: Consumer, health: Health, stop: asyncio.Event) -> None:
    """Let stations in as soon as the way through Kafka is proven; after `stop`, drain.

    If one of the parts ends, all of it ends with that part's exception.
    """
    hub = edge.hub
    hub.announce("started")
    async with asyncio.TaskGroup() as group:
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "directory": edge.directory.run(),
            "directory-probe": edge.directory.probe(),
            "outbound": _read_outbound(hub, consumer),
            "sweep": _sweep(hub),
            "path": _prove_path(hub, group),
            "tick": _tick(hub),
            "loop-delay": _watch_loop(hub, edge.directory),
        }
        tasks = [group.create_task(part, name=name) for name, part in parts.items()]
        await stop.wait()
        await _drain(hub, health)
        for task in tasks:
            task.cancel()


async def _read_outbound(hub: Hub, consumer: Consumer) -> None:
    while True:
        for records in (await consumer.fetch(0.5)).values():
            hub.deliver(records)


async def _sweep(hub: Hub) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS / BUCKETS)
        hub.sweep()


async def _tick(hub: Hub) -> None:
    while True:
        hub.tick()
        await asyncio.sleep(TICK_SECONDS)


async def _watch_loop(hub: Hub, directory: StationDirectory) -> None:
    """Measure how late timers run, and refresh what is measured rather than counted."""
    loop, metrics = asyncio.get_running_loop(), hub.metrics
    while True:
        due = loop.time() + LOOP_PROBE_SECONDS
        await asyncio.sleep(LOOP_PROBE_SECONDS)
        metrics.loop_delay.observe(max(0.0, loop.time() - due))
        metrics.unacknowledged_bytes = hub.producer.unacknowledged_bytes
        metrics.marker_age_seconds = hub.path.age(hub.clock.read().monotonic)
        metrics.kafka_down = hub.path.is_down
        metrics.directory_up = directory.is_up


async def _prove_path(hub: Hub, group: asyncio.TaskGroup) -> None:
    """Send markers, say that this process is alive, and close the sockets when Kafka is away (rule 9)."""
    path, interval = hub.path, hub.config.marker_interval_seconds
    while True:
        # While Kafka is away a few markers wait in the producer; more would only pile up behind them.
        if hub.producer.oldest_unacknowledged_seconds() < hub.config.kafka_grace_seconds:
            hub.send_marker()
            hub.announce("alive")
        for _ in range(10):
            await asyncio.sleep(interval / 10)
            if path.check(hub.clock.read().monotonic):
                logger.error("no marker comes back from Kafka: closing the sockets")
                reason = "the event log cannot be reached: keep your messages"
                closing = close_all(hub, OUTAGE_CLOSE_SECONDS, 1013, reason, go_on=lambda: path.is_down)
                group.create_task(closing, name="outage")


async def close_all(hub: Hub, seconds: float, code: int, reason: str, *, go_on: Callable[[], bool]) -> None:
    """Close all sockets, spread over some time and in random order, as long as there is reason to."""
    sockets = hub.sockets()
    steps = max(1, round(seconds / CLOSE_STEP_SECONDS))
    size = max(CLOSE_STEP_SOCKETS, -(-len(sockets) // steps))
    for start in range(0, len(sockets), size):
        if not go_on():
            return
        for protocol in sockets[start : start + size]:
            protocol.close(code, reason)
        await asyncio.sleep(CLOSE_STEP_SECONDS)


async def _drain(hub: Hub, health: Health) -> None:
    """Readiness goes first, then the sockets, then what is still on its way to Kafka."""
    health.draining = hub.draining = True
    logger.info("draining", extra={"connections": len(hub.connections)})
    hub.announce("draining")
    reason = "this edge restarts: connect again"
    await close_all(hub, hub.config.drain_seconds, 1012, reason, go_on=lambda: True)
    await _until_empty(hub, hub.config.close_timeout_seconds)
    for protocol in hub.all_sockets():
        protocol.abort()
    await _until_empty(hub, 1.0)
    hub.announce("stopped")
    try:
        await asyncio.wait_for(hub.producer.flush(), 5.0)
    except TimeoutError:
        logger.error("stopping with records that Kafka has not acknowledged")


async def _until_empty(hub: Hub, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while hub.all_sockets() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - a poll is enough here
        await asyncio.sleep(CLOSE_STEP_SECONDS)


def _register_checks(edge: Edge, health: Health) -> None:
    """What `/readyz` and `/livez` ask."""
    hub = edge.hub

    def kafka() -> str | None:
        return edge.problem or hub.path.problem(hub.clock.read().monotonic)

    def stations() -> str | None:
        # An edge that has read stations before goes on with those, so Postgres may go away later.
        return None if edge.directory.has_been_up else "the stations could not be read from Postgres yet"

    def path() -> str | None:
        age = hub.path.age(hub.clock.read().monotonic)
        return f"no marker record has come back for {age:.0f} s" if age > STUCK_SECONDS else None

    health.ready["kafka"] = kafka
    health.ready["stations"] = stations
    health.live["path"] = path


def _tune_garbage_collection() -> None:
    """Keep what was made at start out of collections, and collect less often: a full one visits every socket."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
