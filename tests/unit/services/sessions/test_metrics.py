"""What the metrics of sessions say of batches."""

from __future__ import annotations

from busbar.ocpp.versions import Version
from services.sessions.decoding import event_of
from services.sessions.model import Policy
from services.sessions.processor import SessionsProcessor
from tests.support.metrics import figures, since
from tests.unit.services.sessions.world import MINUTE, Station2x, World

PREFIX = "csms_sessions_"


def test_a_batch_counts_once_it_is_committed_however_often_it_was_tried() -> None:
    world, station = World(), Station2x(Version.V201)
    processor, before = SessionsProcessor(Policy(), partitions=4), figures(PREFIX)
    calls = [station.started(0), station.updated(1, 500, MINUTE), station.updated(1, 500, MINUTE)]
    events = [event_of(call) for call in calls]
    state = world.load(events)
    for event in events:
        list(processor.fold(state, event))
    processor.store_call(state)
    processor.store_call(state)
    assert since(before, PREFIX) == {}
    processor.committed(state)
    found = since(before, PREFIX)
    assert (found["events_total", "started"], found["events_total", "updated"]) == (1, 1)
    assert found["meter_samples_total", ""] == 2
    assert sum(value for (name, _), value in found.items() if name == "duplicates_total") == 1
