"""What the metrics of the router say of batches."""

from __future__ import annotations

from services.router.core import Rules, State
from services.router.processor import RouterProcessor
from tests.support.metrics import figures, since
from tests.unit.services.router.given import T0, connected, heard, requested

PREFIX = "csms_router_"


def test_a_batch_counts_once_it_is_committed_however_often_it_was_tried() -> None:
    processor, state, before = RouterProcessor(Rules()), State(T0), figures(PREFIX)
    for event in (heard("edge-0", "i1", at=T0), connected("c1", at=T0), requested("cmd-1", at=T0)):
        list(processor.fold(state, event))
    processor.store_call(state)
    processor.store_call(state)
    assert since(before, PREFIX) == {}
    processor.committed(state)
    assert since(before, PREFIX) == {("command_stages_total", "dispatched"): 1, ("stations_changed_total", ""): 1}
