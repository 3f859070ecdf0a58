"""What the fold of stations works on: the rows that a batch touches, and what is to be written of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from busbar.records import StationCall
from services.stations.policy import Policy

CLOCK_SKEW_MS = 5_000
"""How far apart the clocks of two edges may be. Within it, what is folded later is taken to be later."""


@dataclass(frozen=True, slots=True)
class StationEvent:
    """A CALL of a station, with the partition that it was read from."""

    partition: int
    call: StationCall


@dataclass(frozen=True, slots=True)
class CommandNews:
    """A stage of a command that the shadow shows: it was sent, or it has its outcome."""

    partition: int
    station_id: str
    command_id: str
    action: str
    stage: str
    connection_id: str
    version: str
    payload: Any
    """The answer's payload; `None` unless the stage is `answered`."""
    error: Mapping[str, str] | None
    """`code`, `description` and `details` of anything that is not an answer."""
    at_ms: int


class Placed(Protocol):
    """A fact, or an event: something that a station said at some place in its history."""

    @property
    def received_at_ms(self) -> int: ...
    @property
    def connection_id(self) -> str: ...
    @property
    def sequence(self) -> int: ...


class Place(NamedTuple):
    """Where in a station's history a fact was said."""

    received_at_ms: int
    connection_id: str
    sequence: int
    """Within the connection; 0 for answers to commands, which have none."""


def place_of(call: StationCall) -> Place:
    return Place(call.received_at_ms, call.connection_id, call.sequence)


def is_news(event: Placed, known: Placed) -> bool:
    """Whether the event is at least as new as what is known.

    Within a connection its sequence numbers decide. Between two, the times at which edges received them do, with
    an allowance for their clocks: a dead letter that is re-driven after a day is old, a station that has moved to
    an edge whose clock is a second behind is not. The same event twice is news twice, and says the same.
    """
    if event.connection_id == known.connection_id and event.sequence and known.sequence:
        return event.sequence >= known.sequence
    return event.received_at_ms >= known.received_at_ms - CLOCK_SKEW_MS


@dataclass(slots=True)
class Station:
    """A row of `stations.stations`. JSON stays text here: it is written and shown, never looked into."""

    station_id: str
    partition: int
    ocpp_version: str
    first_seen_at_ms: int
    last_seen_at_ms: int
    vendor: str | None = None
    model: str | None = None
    serial_number: str | None = None
    charge_box_serial_number: str | None = None
    firmware_version: str | None = None
    modem_iccid: str | None = None
    modem_imsi: str | None = None
    meter_type: str | None = None
    meter_serial_number: str | None = None
    boot_reason: str | None = None
    boot: str | None = None
    boot_count: int = 0
    registration_status: str | None = None
    interval_seconds: int | None = None
    last_boot: Place | None = None
    firmware_status: str | None = None
    firmware_status_at_ms: int | None = None
    log_status: str | None = None
    log_status_at_ms: int | None = None
    clock_offset_ms: int | None = None
    clock_offset_at_ms: int | None = None
    last_command_id: str | None = None
    last_command_action: str | None = None
    last_command_stage: str | None = None
    last_command_status: str | None = None
    last_command_result: str | None = None
    last_command_at_ms: int | None = None
    triggered_at_ms: int | None = None


@dataclass(slots=True)
class Connector:
    """A row of `stations.connectors`."""

    station_id: str
    evse_id: int
    connector_id: int
    status: str
    status_since_ms: int
    payload: str
    received_at_ms: int
    connection_id: str
    sequence: int
    previous_status: str = ""
    error_code: str | None = None
    info: str | None = None
    vendor_id: str | None = None
    vendor_error_code: str | None = None
    reported_at_ms: int | None = None


ConnectorKey = tuple[str, int, int]
"""Station, EVSE, connector."""


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of `stations.notifications`."""

    notification_id: UUID
    station_id: str
    action: str
    ocpp_version: str
    payload: str
    status: str | None
    request_id: int | None
    received_at_ms: int
    connection_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A row of `stations.variables`. Fields that are `None` leave what is known as it is."""

    station_id: str
    component: str
    component_instance: str
    evse_id: int
    connector_id: int
    variable: str
    variable_instance: str
    attribute: str
    value: str | None
    mutability: str | None
    persistent: bool | None
    constant: bool | None
    characteristics: str | None
    source: str
    received_at_ms: int
    connection_id: str
    sequence: int

    @property
    def key(self) -> tuple[str | int, ...]:
        return (
            self.station_id,
            self.component,
            self.component_instance,
            self.evse_id,
            self.connector_id,
            self.variable,
            self.variable_instance,
            self.attribute,
        )


@dataclass(frozen=True, slots=True)
class Document:
    """A row of `stations.documents`."""

    station_id: str
    kind: str
    key: str
    payload: str | None
    """JSON text; `None` once the station has withdrawn it."""
    received_at_ms: int
    connection_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What operators decided on a station's registration: from `config.stations`."""

    boot_status: str = "Accepted"
    heartbeat_interval_seconds: int | None = None


DEFAULT_SETTINGS = StationSettings()
"""For a station that the edge let in although nobody has configured it."""


@dataclass(slots=True)
class State:
    """The rows that the events of a batch touch, and what is to be written."""

    now_ms: int
    """The time at which the batch is folded. It goes into answers (`currentTime`) and never into a row."""
    policy: Policy
    settings: Mapping[str, StationSettings] = field(default_factory=dict)
    stations: dict[str, Station] = field(default_factory=dict)
    connectors: dict[ConnectorKey, Connector] = field(default_factory=dict)
    changed_stations: set[str] = field(default_factory=set)
    """Of which the whole row is written."""
    seen_stations: set[str] = field(default_factory=set)
    """Of which only the time, the version and the clock offset are written."""
    changed_connectors: set[ConnectorKey] = field(default_factory=set)
    notifications: dict[UUID, Notification] = field(default_factory=dict)
    variables: dict[tuple[str | int, ...], Variable] = field(default_factory=dict)
    documents: dict[tuple[str, str, str], Document] = field(default_factory=dict)

    def see(self, event: StationEvent) -> Station:
        """The station of an event, made if this is the first that is heard of it."""
        call = event.call
        station = self.stations.get(call.station_id)
        if station is None:
            station = Station(
                station_id=call.station_id,
                partition=event.partition,
                ocpp_version=call.version.value,
                first_seen_at_ms=call.received_at_ms,
                last_seen_at_ms=call.received_at_ms,
            )
            self.stations[call.station_id] = station
            self.changed_stations.add(call.station_id)
            return station
        if event.partition != station.partition:
            station.partition = event.partition
            self.changed_stations.add(call.station_id)
        if call.received_at_ms >= station.last_seen_at_ms:
            station.last_seen_at_ms = call.received_at_ms
            station.ocpp_version = call.version.value
            self.seen_stations.add(call.station_id)
        return station

    def put_variables(self, variables: Iterable[Variable]) -> None:
        for variable in variables:
            known = self.variables.get(variable.key)
            if known is None or is_news(variable, known):
                self.variables[variable.key] = variable if known is None else _merged(variable, known)

    def put_document(self, document: Document) -> None:
        key = (document.station_id, document.kind, document.key)
        known = self.documents.get(key)
        if known is None or is_news(document, known):
            self.documents[key] = document


def _merged(variable: Variable, known: Variable) -> Variable:
    """The newer variable, with what it does not say taken from the older one."""
    return replace(
        variable,
        value=variable.value if variable.value is not None else known.value,
        mutability=variable.mutability or known.mutability,
        persistent=variable.persistent if variable.persistent is not None else known.persistent,
        constant=variable.constant if variable.constant is not None else known.constant,
        characteristics=variable.characteristics or known.characteristics,
    )
