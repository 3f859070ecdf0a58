"""ConnectorUnplugged: a 1.6 station with a display of the California set tells when the car was unplugged.

Spec: "OCPP & California Pricing Requirements" 3.0, CustomIdleFeeAfterStop. The time between the stop of the transaction
and the unplugging is parking of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.ocpp.versions import Version
from busbar.pricing.jsontext import parse_json
from busbar.pricing.problems import TariffError
from busbar.records import StationCall
from busbar.topics import station_topic
from services.billing.costmsg import VENDOR_ID

DATA_TRANSFER_TOPIC = station_topic(Version.V16, "DataTransfer")
_MESSAGE_ID = "ConnectorUnplugged"


@dataclass(frozen=True, slots=True)
class Unplugged:
    """The car of a transaction was unplugged."""

    partition: int
    station_id: str
    transaction_id: str
    at_ms: int
    received_ms: int


def read_unplugged(call: StationCall, partition: int) -> Unplugged | None:
    """What a DataTransfer says of unplugging; `None` if it is another message, or says nothing that can be read."""
    payload = call.payload
    vendor_id, message_id = (str(payload.get(name) or "") for name in ("vendorId", "messageId"))
    if vendor_id.casefold() != VENDOR_ID or message_id.casefold() != _MESSAGE_ID.casefold():
        return None
    try:
        data = parse_json(str(payload.get("data") or ""))
    except TariffError:
        return None
    if not isinstance(data, Mapping):
        return None
    transaction_id: Any = data.get("transactionId")
    if not isinstance(transaction_id, int | str) or isinstance(transaction_id, bool):
        return None
    try:
        at_ms = timestamp_ms(parse_timestamp(str(data.get("timestamp"))))
    except ValueError:
        at_ms = call.received_at_ms
    # A clock that is wrong must not make anybody park for years.
    at_ms = min(at_ms, call.received_at_ms)
    return Unplugged(partition, call.station_id, str(transaction_id), at_ms, call.received_at_ms)
