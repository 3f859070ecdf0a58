"""A station's link to its edge."""

from __future__ import annotations

import json
import math

from busbar.ocpp.versions import Version
from busbar.simulator.link import Link, LinkSettings
from busbar.simulator.tally import Tally


def test_a_link_that_is_hushed_waits_for_its_answer_and_asks_nothing_more() -> None:
    tally = Tally()
    link = Link("CS-1", Version.V16, tally, LinkSettings())
    link.opened()
    link.accepted = True
    for number in range(2):
        link.call("Heartbeat", {"number": number})
    link.step(1.0)
    (frame,) = link.frames_to_send()
    link.hush()
    assert link.is_asking
    link.receive(json.dumps([3, json.loads(frame)[1], {"currentTime": "2026-01-01T00:00:00Z"}]), 2.0)
    link.step(3.0)
    assert not link.is_asking
    assert link.frames_to_send() == []
    assert link.due() == math.inf
    link.closed(4.0)
    assert tally.unanswered == 0
