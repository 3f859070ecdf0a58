"""Every metric of the stream runtime. Label `group` is the processor; station ids are never labels."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# The producer and the consumer of a process.
PRODUCED = Counter("csms_stream_produced_records_total", "Records that Kafka acknowledged", ["topic"])
ACK_SECONDS = Histogram(
    "csms_stream_produce_ack_seconds",
    "From the append of a batch's first record to the acknowledgement of the batch",
    buckets=_FAST,
)
UNACKNOWLEDGED_BYTES = Gauge(
    "csms_stream_unacknowledged_bytes", "Bytes handed to the producer and not yet acknowledged"
)
PRODUCER_REPLACED = Counter(
    "csms_stream_producer_replacements_total", "Kafka producers given up and replaced by new ones", ["reason"]
)
REFUSED = Counter("csms_stream_refused_records_total", "Records that the broker will never accept", ["topic", "error"])
UNKNOWN_PARTITION = Counter(
    "csms_stream_unknown_partition_total", "Batches held back because their partition does not exist", ["topic"]
)
CONSUMER_REPLACED = Counter(
    "csms_stream_consumer_replacements_total", "Kafka consumers given up and replaced by new ones", ["reason"]
)
OFFSET_JUMPS = Counter(
    "csms_stream_offset_jumps_total",
    "Positions that the log no longer (or not yet) holds, so that reading went on at its start",
    ["topic"],
)
OFFSET_GAPS = Counter("csms_stream_offset_gaps_total", "Offsets missing between two records of a partition", ["topic"])

# The worker of a processor.
RECORDS = Counter("csms_stream_records_total", "Records by their fate", ["group", "topic", "fate"])
BATCH_SIZE = Histogram(
    "csms_stream_batch_size",
    "Events folded and committed together",
    ["group"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000),
)
LOAD_SECONDS = Histogram("csms_stream_load_seconds", "Loading the state of a batch", ["group"], buckets=_FAST)
FOLD_SECONDS = Histogram("csms_stream_fold_seconds", "Folding a batch", ["group"], buckets=_FAST)
COMMIT_SECONDS = Histogram(
    "csms_stream_commit_seconds", "The transaction of a batch: state, offsets and results", ["group"], buckets=_FAST
)
ACK_WAIT_SECONDS = Histogram(
    "csms_stream_ack_wait_seconds",
    "A batch waiting, before its commit, for the acknowledgements of the results of the one before it",
    ["group"],
    buckets=_FAST,
)
LAG_RECORDS = Gauge("csms_stream_lag_records", "Records of owned partitions not yet committed", ["group", "topic"])
LAG_SECONDS = Gauge("csms_stream_lag_seconds", "Age of the oldest record that waits to be folded", ["group"])
MERGE_WAIT_SECONDS = Counter(
    "csms_stream_merge_wait_seconds_total", "Time that partitions waited for a topic that lagged", ["group"]
)
DEAD_LETTERS = Counter("csms_stream_dead_letters_total", "Records given up, by reason", ["group", "reason"])
UNDELIVERABLE = Counter(
    "csms_stream_undeliverable_results_total", "Results that no topic can take, by reason", ["group", "reason"]
)
RESULTS = Counter("csms_stream_results_total", "Results handed to Kafka after their commit", ["group", "topic"])
LEASES_OWNED = Gauge("csms_stream_leases_owned", "Partitions that this worker owns", ["group"])
TAKEOVERS = Counter("csms_stream_takeovers_total", "Partitions claimed", ["group"])
OVERTAKEN = Counter(
    "csms_stream_cas_failures_total", "Partitions found to be owned by others, at a commit or between", ["group"]
)
BUSY = Counter("csms_stream_busy_total", "Partitions paused because a fold was not ready for a record", ["group"])
STORE_FAILURES = Counter("csms_stream_store_failures_total", "Times the database could not be used", ["group"])


@cache
def records(group: str, topic: str, fate: str) -> Counter:
    """The child of `RECORDS`, looked up once: labels cost more than the increment."""
    return RECORDS.labels(group, topic, fate)


@cache
def results(group: str, topic: str) -> Counter:
    """The child of `RESULTS`."""
    return RESULTS.labels(group, topic)
