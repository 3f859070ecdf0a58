"""Every metric of the stream runtime. Label `group` is the processor; station ids are never labels."""

from __future__ import annotations

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
