"""The map of topics."""

from __future__ import annotations

import pytest

from busbar.ocpp.versions import Version
from busbar.topics import (
    MAX_BATCH_BYTES,
    all_topics,
    partition_profiles,
    station_topic,
    topic_configuration,
    topics_read_by,
    topics_written_by,
)


def test_there_is_a_topic_for_every_action_of_a_station() -> None:
    counts = [sum(topic.version is version for topic in all_topics().values()) for version in Version]
    assert counts == [14, 25, 37]


def test_a_topic_is_named_by_version_and_action() -> None:
    name = station_topic(Version.V201, "TransactionEvent")
    topic = all_topics()[name]
    assert name == "ocpp.v201.TransactionEvent" == topic.name == topic.schema
    assert (topic.version, topic.action) == (Version.V201, "TransactionEvent")
    assert topic.readers == ("sessions", "analytics")


def test_an_action_that_the_edge_answers_is_not_read_back_by_it() -> None:
    assert all_topics()["ocpp.v16.Heartbeat"].readers == ("analytics",)
    assert topics_read_by("edge") == ("csms.outbound",)


def test_a_service_reads_the_topics_of_its_actions_and_those_that_name_it() -> None:
    read = topics_read_by("sessions")
    assert "ocpp.v21.TransactionEvent" in read
    assert "csms.contract-checks" in read
    assert "ocpp.v21.StatusNotification" not in read


def test_another_reader_of_an_action_may_be_of_one_version_only() -> None:
    assert all_topics()["ocpp.v16.Authorize"].readers == ("sessions", "billing", "analytics")
    assert all_topics()["ocpp.v201.Authorize"].readers == ("sessions", "analytics")
    assert all_topics()["ocpp.v16.Authorize"].retention_days == 30


def test_any_service_may_write_dead_letters() -> None:
    assert topics_written_by("router")[-1] == "csms.dead-letters"
    assert "csms.session-events" not in topics_written_by("router")


def test_what_one_processor_folds_together_has_the_same_partitions() -> None:
    for service in ("sessions", "stations", "router", "billing"):
        groups = {all_topics()[name].partition_group for name in topics_read_by(service)}
        assert groups == {"stations"}, service


def test_partitions_follow_the_profile() -> None:
    topic = all_topics()["csms.commands"]
    assert [topic.partitions(profile) for profile in partition_profiles()] == [4, 12, 48]
    with pytest.raises(ValueError, match="no partitions profile 'huge': there are local, small, large"):
        topic.partitions("huge")


def test_the_configuration_says_how_long_records_are_kept() -> None:
    day = 86_400_000
    heartbeats = topic_configuration(all_topics()["ocpp.v16.Heartbeat"], 1)
    assert (heartbeats["cleanup.policy"], heartbeats["retention.ms"]) == ("delete", str(day))
    assert int(heartbeats["segment.ms"]) < day
    compacted = topic_configuration(all_topics()["csms.station-status"], 1)
    assert compacted["cleanup.policy"] == "compact"
    assert "retention.ms" not in compacted


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_one_replica_may_be_missing(replicas: int, in_sync: str) -> None:
    assert topic_configuration(all_topics()["csms.commands"], replicas)["min.insync.replicas"] == in_sync


def test_every_topic_takes_the_largest_request_of_a_producer_and_its_own_timestamps() -> None:
    for topic in all_topics().values():
        configuration = topic_configuration(topic, 3)
        assert int(configuration["max.message.bytes"]) == MAX_BATCH_BYTES > 1024 * 1024
        assert configuration["message.timestamp.type"] == "CreateTime"
        assert configuration["compression.type"] == "producer"
        assert all(isinstance(value, str) for value in configuration.values())
