"""A real Apache Kafka on this machine: one node for work, three for tests of what happens when nodes die.

Nodes run in KRaft mode, each broker and controller in one, on 127.0.0.1 only, with replication over all nodes. The
data survives restarts and SIGKILL; a node never outlives the process that started it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from busbar.local.artifacts import Progress, ensure_kafka
from busbar.local.errors import StackError
from busbar.local.java import Java, find_java
from busbar.local.ports import free_port
from busbar.local.process import Process

READY_TOPIC = "local.ready"
"""A record is produced here to find out whether the cluster takes records; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How much a node may take of the machine."""

    jvm: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.jvm)


TEST = Profile(("-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"))
"""Quick to start and small: for tests, which run for minutes."""

RUN = Profile(("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"))
"""Compiled fully: for load, and for stacks that run for days."""

_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


@dataclass(frozen=True, slots=True)
class Detour:
    """A listener for clients that reach the node through something in between."""

    port: int
    """Where the node listens."""
    advertised_port: int
    """Where such clients are told to connect."""


class KafkaNode:
    """One broker and controller: its folder, its ports and its process."""

    def __init__(
        self, node_id: int, folder: Path, log_path: Path, preferred_port: int | None, detours: Iterable[str] = ()
    ) -> None:
        self.node_id = node_id
        self.folder = folder
        self.port = free_port(preferred_port) if preferred_port else free_port()
        self.controller_port = free_port()
        self.detours = {name: Detour(free_port(), free_port()) for name in detours}
        self.log_path = log_path
        self.process: Process | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.running

    @property
    def settings_path(self) -> Path:
        return self.folder / "server.properties"

    def write_settings(self, nodes: Sequence[KafkaNode]) -> None:
        """Write `server.properties` and the configuration of its log for this start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = node_settings(self, nodes)
        self.settings_path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        scratch = self.folder / "tmp"  # native libraries are unpacked here; a killed JVM leaves them behind
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()


def node_settings(node: KafkaNode, nodes: Sequence[KafkaNode]) -> dict[str, str]:
    """A node's `server.properties`."""
    replicas = str(len(nodes))
    in_sync = "2" if len(nodes) > 1 else "1"
    voters = ",".join(f"{other.node_id}@127.0.0.1:{other.controller_port}" for other in nodes)
    listeners = {"PLAINTEXT": Detour(node.port, node.port), **node.detours}
    listening = [f"{name}://127.0.0.1:{listener.port}" for name, listener in listeners.items()]
    advertised = [f"{name}://127.0.0.1:{listener.advertised_port}" for name, listener in listeners.items()]
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join([*listening, f"CONTROLLER://127.0.0.1:{node.controller_port}"]),
        "advertised.listeners": ",".join(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in [*listeners, "CONTROLLER"]),
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(node.folder / "log"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        # A node that comes back after SIGKILL is let in once its old session has run out.
        "broker.session.timeout.ms": "2000" if len(nodes) == 1 else "3000",
        "broker.heartbeat.interval.ms": "250",
        "num.network.threads": "1",
        "num.io.threads": "2",
        "num.recovery.threads.per.data.dir": "1",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "log.index.size.max.bytes": "1048576",
    }


class KafkaCluster:
    """One or three Kafka nodes of our own.

    Args:
        folder: Where the data lives; created if it is not there. A second start in it keeps the data.
        nodes: 1, or 3 with replication factor 3 and `min.insync.replicas=2`.
        profile: `TEST` or `RUN`.
        preferred_port: The first node's port if it is free.
        log_folder: Where the nodes' own logs go; `folder` unless given.
        detours: Names, in capitals, of further listeners of each node, whose advertised ports are somebody else's to
            listen on, such as a test's that sits between a client and the nodes.
        progress: Told about the download, if there is one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        profile: Profile = TEST,
        preferred_port: int | None = None,
        log_folder: Path | None = None,
        detours: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        if nodes not in (1, 3):
            raise ValueError("a cluster has one node or three")
        self.folder = folder.absolute()
        self.profile = profile
        self.java: Java | None = None
        self._progress = progress
        self._class_path = ""
        logs = log_folder or self.folder
        self.nodes = {
            number: KafkaNode(
                number,
                self.folder / f"node-{number}",
                logs / ("kafka.log" if nodes == 1 else f"kafka-{number}.log"),
                preferred_port if number == 1 else None,
                detours,
            )
            for number in range(1, nodes + 1)
        }

    @property
    def bootstrap_servers(self) -> str:
        """For `bootstrap_servers` of any client."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes.values())

    async def start(self, timeout_seconds: float = 120.0) -> None:
        """Fetch the broker if need be, start every node and wait until the cluster takes records.

        Raises:
            StackError: It cannot be fetched, there is no Java, or a node does not come up.
        """
        self.java = await asyncio.to_thread(find_java)
        archives = await asyncio.to_thread(ensure_kafka, self._progress)
        self._class_path = os.pathsep.join(str(path) for path in archives)
        await self._format()
        for node in self.nodes.values():
            self._start_process(node)
        await self.wait_ready(timeout_seconds)

    async def __aenter__(self) -> KafkaCluster:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self, node_id: int | None = None, *, grace_seconds: float = 15.0) -> None:
        """Stop one node, or every node at once, in an orderly way. The data stays."""
        nodes = self.nodes.values() if node_id is None else [self.nodes[node_id]]
        running = [node.process for node in nodes if node.process is not None and node.running]
        await asyncio.gather(*(process.stop(grace_seconds=grace_seconds) for process in running))

    async def kill(self, node_id: int = 1) -> None:
        """SIGKILL a node."""
        process = self.nodes[node_id].process
        if process is not None:
            await process.kill()

    async def restart(self, node_id: int = 1, *, wait: bool = True, timeout_seconds: float = 120.0) -> None:
        """Start a node that was killed, or stop and start one that runs, on the same port."""
        node = self.nodes[node_id]
        if node.process is not None:
            await node.process.stop()
        self._start_process(node)
        if wait:
            await self.wait_ready(timeout_seconds)

    def send_signal(self, number: signal.Signals, node_id: int = 1) -> None:
        """Send a node a signal, such as SIGSTOP and later SIGCONT."""
        process = self.nodes[node_id].process
        if process is not None:
            process.send(number)

    async def wait_ready(self, timeout_seconds: float = 120.0) -> None:
        """Wait until all nodes that run are members, every topic has its leaders, and a record is acknowledged.

        Raises:
            StackError: A node ended, or the time ran out.
        """
        expected = {node.node_id for node in self.nodes.values() if node.running}
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._check_alive(expected)
            try:
                async with asyncio.timeout(10):
                    if await _is_ready(self._running_servers(expected), expected, len(self.nodes)):
                        return
            except (KafkaError, OSError, TimeoutError):
                pass
            if time.monotonic() > deadline:
                raise StackError(
                    f"Kafka does not take records after {timeout_seconds:.0f} s: see {self.nodes[1].log_path}"
                )
            await asyncio.sleep(0.05)

    def _running_servers(self, node_ids: Iterable[int]) -> list[str]:
        return [f"127.0.0.1:{self.nodes[number].port}" for number in sorted(node_ids)]

    def _check_alive(self, node_ids: Iterable[int]) -> None:
        for number in node_ids:
            node = self.nodes[number]
            if node.process is not None and not node.running:
                tail = node.process.log_tail(1)
                raise StackError(
                    f"Kafka ended with {node.process.returncode} at its start: {tail}; see {node.log_path}"
                )

    async def _format(self) -> None:
        """Make the data folders of a new cluster. An interrupted attempt is thrown away and made again."""
        new = [node for node in self.nodes.values() if not (node.folder / "formatted").exists()]
        there = len(list(self.folder.glob("node-*/formatted")))
        if there not in (0, len(self.nodes)):
            raise StackError(
                f"{self.folder} holds a cluster of {there} node{'s' * (there > 1)}, not of {len(self.nodes)}: start it"
                " with as many (--kafka-nodes), or remove it (`make clean`)"
            )
        if not new:
            return
        cluster_id = base64.urlsafe_b64encode(b"B" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        formatters = []
        for node in new:
            shutil.rmtree(node.folder / "log", ignore_errors=True)
            node.write_settings(list(self.nodes.values()))
            arguments = ["format", "--cluster-id", cluster_id, "--config", str(node.settings_path)]
            process = self._java_process(node, TEST, "kafka.tools.StorageTool", *arguments)
            process.start()
            formatters.append((node, process))
        for node, process in formatters:
            if await process.wait(60) != 0:
                await process.kill()
                tail = process.log_tail(1)
                raise StackError(f"the data folder {node.folder} cannot be made: {tail}; see {node.log_path}")
        for node, _ in formatters:
            (node.folder / "formatted").touch()

    def _start_process(self, node: KafkaNode) -> None:
        node.write_settings(list(self.nodes.values()))
        node.process = self._java_process(node, self.profile, "kafka.Kafka", str(node.settings_path))
        node.process.start()

    def _java_process(self, node: KafkaNode, profile: Profile, main: str, *arguments: str) -> Process:
        if self.java is None:
            raise RuntimeError("start the cluster first")
        flags = [
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={node.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}",
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",
        ]
        if self.java.major >= 24:
            flags.append("--sun-misc-unsafe-memory-access=allow")
        command = [str(self.java.path), *profile.jvm, *flags, "-cp", self._class_path, main, *arguments]
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2"}
        environment.pop("CLASSPATH", None)
        return Process(f"kafka-{node.node_id}", command, log_path=node.log_path, environment=environment)


async def _is_ready(servers: Sequence[str], expected: set[int], replicas: int) -> bool:
    for server in servers:  # quietly: clients write a warning for every refused connection
        host, port = server.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=list(servers))
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        if not expected <= {broker["node_id"] for broker in cluster["brokers"]}:
            return False
        topics = await admin.list_topics()
        if READY_TOPIC not in topics:
            topic = NewTopic(
                READY_TOPIC, num_partitions=1, replication_factor=replicas, topic_configs={"retention.ms": "60000"}
            )
            await admin.create_topics([topic])
    finally:
        await admin.close()
    # Clients do not tell of Kafka's own topics, whose names begin with two underscores.
    await wait_for_leaders(",".join(servers), (topic for topic in topics if not topic.startswith("__")))
    return await takes_records(servers)


async def takes_records(servers: Sequence[str]) -> bool:
    """Whether a record produced now is acknowledged by all in-sync replicas."""
    producer = AIOKafkaProducer(bootstrap_servers=list(servers), acks="all", request_timeout_ms=5000)
    try:
        await producer.start()
        await producer.send_and_wait(READY_TOPIC, b"")
        return True
    finally:
        await producer.stop()


async def wait_for_leaders(bootstrap_servers: str, topics: Iterable[str], timeout_seconds: float = 30.0) -> None:
    """Wait until every partition of these topics takes records.

    Metadata names leaders of new topics at once, but a leader refuses requests for seconds until it has
    opened its log. It answers for the end of the log as soon as it takes records, too.

    Raises:
        TimeoutError: Some partition still does not.
    """
    names = set(topics)
    if not names:
        return
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=None)
    async with asyncio.timeout(timeout_seconds):
        await consumer.start()
        try:
            while not names <= await consumer.topics():  # noqa: ASYNC110 - the broker knows
                await asyncio.sleep(0.1)
            found = {name: consumer.partitions_for_topic(name) for name in names}
            partitions = [TopicPartition(name, number) for name, numbers in found.items() for number in numbers or ()]
            consumer.assign(partitions)  # without it the client asks for each topic's metadata by itself
            await consumer.end_offsets(partitions)
        finally:
            await consumer.stop()
