"""Every metric of the edge.

What is counted per frame is counted in plain integers, and turned into metrics when somebody asks: a labelled counter
costs a lock and a lookup, which is too much at 40,000 frames a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
LOOP_DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class PlainHistogram:
    """A histogram without a lock: for one thread."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus has them."""
        running, found = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            found.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
        return found


class ActionCounts:
    """What became of the CALLs of one action in one version."""

    __slots__ = ("answered", "errors", "invalid", "joined", "late", "latency", "received", "resent", "unanswered")

    def __init__(self) -> None:
        self.received = 0
        """Accepted and published; each has one of the outcomes below, or is still pending."""
        self.answered = 0
        self.errors = 0
        """Answered by the owner with a CALLERROR."""
        self.late = 0
        """Answered by the edge in the owner's place (rule 9)."""
        self.unanswered = 0
        """Given up: the connection ended first, or nobody answered."""
        self.invalid = 0
        """Refused by the edge, and not published on the action's topic."""
        self.resent = 0
        """The same CALL again, answered with the stored answer."""
        self.joined = 0
        """The same CALL again while the first one is pending."""
        self.latency = PlainHistogram(LATENCY_BUCKETS)


class EdgeMetrics(Collector):
    """The counters of one edge process."""

    def __init__(self) -> None:
        self.actions: dict[tuple[str, str], ActionCounts] = {}
        """By version and action."""
        self.malformed: Counter[tuple[str, str]] = Counter()
        """By version and error code."""
        self.repairs: Counter[tuple[str, str]] = Counter()
        """By version and name of the repair."""
        self.commands: Counter[str] = Counter()
        """By stage."""
        self.handshakes: Counter[str] = Counter()
        """By outcome."""
        self.closes: Counter[tuple[str, str]] = Counter()
        """By close code and who closed."""
        self.outbound: Counter[tuple[str, str]] = Counter()
        """Records of `csms.outbound` by kind and what became of them."""
        self.connections: Counter[str] = Counter()
        """Open now, by version."""
        self.handshaking = 0
        self.frames_received = 0
        self.bytes_received = 0
        self.frames_sent = 0
        self.bytes_sent = 0
        self.pings = 0
        self.paused_sockets = 0
        self.backpressure_pauses = 0
        self.unacknowledged_bytes = 0
        self.marker_age_seconds = 0.0
        self.kafka_down = False
        self.directory_up = False
        self.loop_delay = PlainHistogram(LOOP_DELAY_BUCKETS)

    def of_action(self, version: str, action: str) -> ActionCounts:
        """The counters of one action; they live as long as the process."""
        return self.actions.setdefault((version, action), ActionCounts())

    def register(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Make them part of `/metrics`."""
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield self._calls()
        yield self._latency()
        yield _counter(
            "csms_edge_malformed_frames", "Frames refused, by the code that answered", self.malformed, "code"
        )
        yield _counter("csms_edge_repairs", "Quirks of stations repaired or tolerated", self.repairs, "repair")
        yield _single("csms_edge_command_stages", "Stages of commands reported by the edge", "stage", self.commands)
        yield _single("csms_edge_handshakes", "Opening handshakes by outcome", "outcome", self.handshakes)
        closes = CounterMetricFamily("csms_edge_closed_connections", "Connections ended", labels=["code", "by"])
        for labels, count in self.closes.items():
            closes.add_metric(labels, count)
        yield closes
        outbound = CounterMetricFamily(
            "csms_edge_outbound", "Records of csms.outbound by what became of them", labels=["kind", "outcome"]
        )
        for labels, count in self.outbound.items():
            outbound.add_metric(labels, count)
        yield outbound
        connections = GaugeMetricFamily("csms_edge_connections", "Open connections of stations", labels=["version"])
        for version, count in self.connections.items():
            connections.add_metric([version], count)
        yield connections
        yield from self._totals()
        yield from self._gauges()
        delay = HistogramMetricFamily("csms_edge_loop_delay_seconds", "How late the event loop runs its timers")
        delay.add_metric([], self.loop_delay.buckets(), self.loop_delay.total)
        yield delay

    def _calls(self) -> Metric:
        family = CounterMetricFamily(
            "csms_edge_frames", "CALLs of stations by action and outcome", labels=["version", "action", "outcome"]
        )
        for (version, action), counts in self.actions.items():
            for outcome in ("received", "answered", "errors", "late", "unanswered", "invalid", "resent", "joined"):
                family.add_metric([version, action, outcome], getattr(counts, outcome))
        return family

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "csms_edge_reply_seconds",
            "From the receipt of a CALL to its answer on the socket",
            labels=["version", "action"],
        )
        for key, counts in self.actions.items():
            # Some seventy actions, of which a fleet uses ten: the loop that writes the page serves the sockets, too.
            if any(counts.latency.counts):
                family.add_metric(key, counts.latency.buckets(), counts.latency.total)
        return family

    def _totals(self) -> Iterator[Metric]:
        for name, help_text, value in (
            ("csms_edge_received_frames", "WebSocket messages received", self.frames_received),
            ("csms_edge_received_bytes", "Payload bytes received", self.bytes_received),
            ("csms_edge_sent_frames", "WebSocket messages sent", self.frames_sent),
            ("csms_edge_sent_bytes", "Payload bytes sent", self.bytes_sent),
            ("csms_edge_pings", "Pings sent to silent stations", self.pings),
            (
                "csms_edge_backpressure_pauses",
                "Sockets not read for a while because Kafka or the loop is behind",
                self.backpressure_pauses,
            ),
        ):
            yield CounterMetricFamily(name, help_text, value=value)

    def _gauges(self) -> Iterator[Metric]:
        for name, help_text, value in (
            ("csms_edge_handshaking_sockets", "Sockets in their opening handshake", float(self.handshaking)),
            ("csms_edge_paused_sockets", "Sockets not read at the moment", float(self.paused_sockets)),
            (
                "csms_edge_unacknowledged_bytes",
                "Bytes produced and not yet acknowledged",
                float(self.unacknowledged_bytes),
            ),
            ("csms_edge_marker_age_seconds", "Since a marker record last came back", self.marker_age_seconds),
            ("csms_edge_kafka_down", "1 while sockets are refused because Kafka is away", float(self.kafka_down)),
            ("csms_edge_directory_up", "1 if the last look-up of stations worked", float(self.directory_up)),
        ):
            yield GaugeMetricFamily(name, help_text, value=value)


def _counter(name: str, help_text: str, counts: Counter[tuple[str, str]], label: str) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["version", label])
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _single(name: str, help_text: str, label: str, counts: Iterable[str] | Counter[str]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in Counter(counts).items():
        family.add_metric([value], count)
    return family
