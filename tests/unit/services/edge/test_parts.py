"""The smaller parts of the edge: the path through Kafka, settings, metrics."""

from __future__ import annotations

from base64 import b64encode

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from busbar.config import ConfigError, Env
from busbar.ocpp.versions import Version
from services.edge.config import EdgeConfig
from services.edge.metrics import PlainHistogram
from services.edge.path import KafkaPath
from tests.unit.services.edge.bench import Bench


def test_the_path_is_down_until_a_marker_has_come_back() -> None:
    path = KafkaPath(15)
    assert path.is_down
    assert not path.check(100.0)
    assert path.prove(101.0)
    assert not path.is_down
    assert path.problem(101.0) is None


def test_the_path_goes_down_once_after_the_grace_and_up_with_the_next_marker() -> None:
    path = KafkaPath(15)
    path.prove(0.0)
    assert not path.check(15.0)
    assert path.check(15.1)
    assert not path.check(16.0)
    assert path.is_down
    assert path.problem(16.0) == "no marker record has come back from Kafka for 16 s"
    assert path.prove(17.0)
    assert not path.prove(18.0)
    assert not path.is_down


def test_settings_come_from_the_environment() -> None:
    pepper = b64encode(b"secret").decode()
    config = EdgeConfig.from_env(
        Env(
            {
                "BUSBAR_EDGE_ID": "busbar-edge-7",
                "BUSBAR_EDGE_LISTEN": "0.0.0.0:80",
                "BUSBAR_EDGE_PATH": "/ws/v1/",
                "BUSBAR_AUTO_REGISTER": "true",
                "BUSBAR_PASSWORD_PEPPER": pepper,
            }
        )
    )
    assert (config.edge, config.edge_partition) == ("busbar-edge-7", 7)
    assert (config.listen, config.path_prefix) == (("0.0.0.0", 80), "/ws/v1")
    assert (config.auto_register, config.password_pepper) == (True, b"secret")
    assert (config.late_seconds, config.kafka_grace_seconds, config.max_frame_bytes) == (20.0, 15.0, 256 * 1024)


@pytest.mark.parametrize(("path", "prefix"), [("/", ""), ("*", "*"), ("ocpp", "/ocpp")])
def test_the_path_prefix_may_be_written_in_several_ways(path: str, prefix: str) -> None:
    assert EdgeConfig.from_env(Env({"BUSBAR_EDGE_PATH": path})).path_prefix == prefix


@pytest.mark.parametrize(
    "values",
    [
        {"BUSBAR_PASSWORD_PEPPER": "not base64!"},
        {"BUSBAR_EDGE_MAX_FRAME_BYTES": "10000000"},
        {"BUSBAR_EDGE_PARTITION": "-1"},
        {"BUSBAR_EDGE_LISTEN": "here"},
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_not_repeated(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        EdgeConfig.from_env(Env(values))
    (name,) = values
    assert name in str(caught.value)
    assert "not base64!" not in str(caught.value)


def test_a_histogram_counts_cumulatively_and_includes_its_bounds() -> None:
    histogram = PlainHistogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == pytest.approx(5.65)


def test_metrics_name_actions_and_outcomes_and_no_station() -> None:
    bench = Bench(Version.V16)
    registry = CollectorRegistry()
    bench.metrics.register(registry)
    bench.send(2, "1", "Heartbeat", {})
    bench.send(2, "2", "Authorize", {"idTag": "A"})
    bench.deliver(message_id="2", payload={})
    bench.send(2, "3", "Authorize", {})
    bench.send(2, "4", "StatusNotification", {"connectorId": "1", "errorCode": "NoError", "status": "Available"})
    bench.deliver(kind="call", message_id="c", action="ClearCache", payload={})
    text = generate_latest(registry).decode()
    for line in (
        'csms_edge_frames_total{action="Heartbeat",outcome="answered",version="1.6"} 1.0',
        'csms_edge_frames_total{action="Authorize",outcome="answered",version="1.6"} 1.0',
        'csms_edge_frames_total{action="Authorize",outcome="invalid",version="1.6"} 1.0',
        'csms_edge_reply_seconds_count{action="Authorize",version="1.6"} 1.0',
        'csms_edge_malformed_frames_total{code="OccurenceConstraintViolation",version="1.6"} 1.0',
        'csms_edge_repairs_total{repair="integer-from-string",version="1.6"} 1.0',
        'csms_edge_command_stages_total{stage="sent"} 1.0',
    ):
        assert line in text
    assert "CP1" not in text


def test_an_action_has_counters_before_its_first_call_and_a_histogram_from_its_first_answer() -> None:
    """Rates need the zero; a page with all buckets of all actions holds up the loop."""
    bench = Bench(Version.V16)
    registry = CollectorRegistry()
    bench.metrics.register(registry)
    bench.metrics.of_action("1.6", "FirmwareStatusNotification")
    bench.send(2, "1", "Authorize", {"idTag": "A"})
    bench.deliver(message_id="1", payload={})
    text = generate_latest(registry).decode()
    assert 'csms_edge_frames_total{action="FirmwareStatusNotification",outcome="errors",version="1.6"} 0.0' in text
    assert 'csms_edge_reply_seconds_count{action="Authorize",version="1.6"} 1.0' in text
    assert 'csms_edge_reply_seconds_count{action="FirmwareStatusNotification"' not in text
