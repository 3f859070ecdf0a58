"""Figures of the live view, from the text of `/metrics`."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from busbar.local.figures import Collector, Scrape, quantile, summarize
from services.edge.metrics import EdgeMetrics

BEFORE = """\
# TYPE csms_edge_received_frames counter
csms_edge_received_frames_total 100
# TYPE csms_edge_sent_frames counter
csms_edge_sent_frames_total 50
# TYPE csms_edge_connections gauge
csms_edge_connections{version="1.6"} 2
csms_edge_connections{version="2.0.1"} 3
# TYPE csms_edge_reply_seconds histogram
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="0.01"} 10
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="0.02"} 10
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="+Inf"} 10
"""
AFTER = """\
# TYPE csms_edge_received_frames counter
csms_edge_received_frames_total 300
# TYPE csms_edge_sent_frames counter
csms_edge_sent_frames_total 250
# TYPE csms_edge_connections gauge
csms_edge_connections{version="1.6"} 4
csms_edge_connections{version="2.0.1"} 3
# TYPE csms_edge_frames counter
csms_edge_frames_total{action="Heartbeat",outcome="late",version="1.6"} 5
csms_edge_frames_total{action="Heartbeat",outcome="answered",version="1.6"} 95
# TYPE csms_edge_reply_seconds histogram
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="0.01"} 10
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="0.02"} 110
csms_edge_reply_seconds_bucket{action="Heartbeat",version="1.6",le="+Inf"} 110
csms_edge_reply_seconds_bucket{action="BootNotification",version="1.6",le="0.01"} 100
csms_edge_reply_seconds_bucket{action="BootNotification",version="1.6",le="0.02"} 100
csms_edge_reply_seconds_bucket{action="BootNotification",version="1.6",le="+Inf"} 100
"""
PROCESSOR = """\
# TYPE csms_stream_lag_records gauge
csms_stream_lag_records{group="sessions"} 7
csms_stream_lag_records{group="stations"} 5
# TYPE csms_stream_dead_letters counter
csms_stream_dead_letters_total{group="sessions",reason="undecodable"} 2
"""


def scrape(*texts: str) -> Scrape:
    found = Scrape()
    for text in texts:
        found.add(text)
    return found


def test_figures_are_added_up_over_processes_and_labels() -> None:
    figures = summarize(scrape(AFTER, AFTER, PROCESSOR), scrape(BEFORE, BEFORE), 10.0, 12, 3.5)
    assert figures.stations_online == 14
    assert figures.messages_per_second == 80.0
    assert (figures.active_sessions, figures.energy_kwh) == (12, 3.5)
    assert figures.lag_records == 12
    assert figures.dead_letters == 2
    assert figures.late_replies == 10


def test_the_reply_time_is_of_what_was_answered_since_the_last_look() -> None:
    figures = summarize(scrape(AFTER), scrape(BEFORE), 10.0, None, None)
    # 200 answers since: 100 within 10 ms, 100 within 20 ms; the 198th lies at 98 % of the second bucket.
    assert figures.reply_p99_ms == pytest.approx(19.8)


def test_the_first_look_has_no_rates() -> None:
    figures = summarize(scrape(AFTER), None, 10.0, None, None)
    assert math.isnan(figures.messages_per_second)
    assert math.isnan(figures.reply_p99_ms)
    assert figures.stations_online == 7


def test_a_restarted_process_makes_no_negative_rate() -> None:
    assert summarize(scrape(BEFORE), scrape(AFTER), 5.0, None, None).messages_per_second == 0.0


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert quantile(0.99, {}, {0.1: 10.0, 1.0: 20.0, math.inf: 100.0}) == 1.0


def test_a_quantile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(quantile(0.99, {0.1: 5.0, math.inf: 5.0}, {0.1: 5.0, math.inf: 5.0}))
    assert math.isnan(quantile(0.99, {}, {}))


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_lie_in_the_bucket_of_the_value(share: float) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("t_seconds", "Test.", registry=registry, buckets=(0.1, 0.2, 0.4, 0.8))
    for number in range(1, 101):
        histogram.observe(0.75 * number / 100)
    found = Scrape()
    found.add(generate_latest(registry).decode())
    value = 0.75 * share
    below = max((bound for bound in (0.0, 0.1, 0.2, 0.4) if bound < value), default=0.0)
    above = min(bound for bound in (0.1, 0.2, 0.4, 0.8) if bound >= value)
    assert below <= quantile(share, {}, found.buckets("t_seconds")) <= above


def test_the_names_are_those_of_the_edges_metrics() -> None:
    metrics = EdgeMetrics()
    metrics.connections["1.6"] = 3
    metrics.frames_received = 40
    metrics.frames_sent = 60
    counts = metrics.of_action("1.6", "Heartbeat")
    counts.late = 4
    counts.latency.observe(0.004)
    registry = CollectorRegistry()
    metrics.register(registry)
    figures = summarize(scrape(generate_latest(registry).decode()), Scrape(), 1.0, None, None)
    assert figures.stations_online == 3
    assert figures.messages_per_second == 100.0
    assert figures.late_replies == 4
    assert 2.5 < figures.reply_p99_ms <= 5


async def test_what_is_shown_is_what_the_whole_page_says() -> None:
    """The collector reads only the lines that it needs."""
    pages = iter((BEFORE + PROCESSOR, AFTER + PROCESSOR))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=next(pages))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with TestServer(app, host="127.0.0.1") as server:
        collector = Collector({"edge-0": str(server.make_url("/metrics"))}, "postgresql://127.0.0.1:1/none")
        first, second = await collector.collect(), await collector.collect()
        await collector.close()
    assert math.isnan(first.messages_per_second)
    whole = summarize(scrape(AFTER, PROCESSOR), scrape(BEFORE, PROCESSOR), 1.0, None, None)
    assert second == replace(whole, messages_per_second=second.messages_per_second)
    assert (whole.stations_online, whole.lag_records, whole.dead_letters, whole.late_replies) == (7, 12, 2, 5)
    assert second.messages_per_second > 0


async def test_what_does_not_answer_is_named() -> None:
    collector = Collector({"edge-0": "http://127.0.0.1:1/metrics"}, "postgresql://127.0.0.1:1/none")
    figures = await collector.collect()
    assert figures.unreachable == ("edge-0",)
    assert figures.active_sessions is None
    await collector.close()
