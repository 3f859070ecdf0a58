"""What the desk hears, and the rows that its fold works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from busbar.records import ReturnAddress, StationCall
from busbar.tariffs import TariffBook
from services.billing.commands import make_id
from services.billing.desk.vat import VatAnswer


@dataclass(frozen=True, slots=True)
class Asked:
    """A CALL of a station, with the partition that it was read from."""

    partition: int
    call: StationCall


@dataclass(frozen=True, slots=True)
class CommandNews:
    """The outcome of a command that the desk may have sent."""

    partition: int
    station_id: str
    command_id: str
    action: str
    stage: str
    payload: Mapping[str, Any]
    """The answer's payload; empty unless the stage is `answered`."""
    error_code: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class VatChecked:
    """A question about a VAT number can be answered."""

    partition: int
    question_id: str
    answer: VatAnswer


@dataclass(frozen=True, slots=True)
class SettlementPlaced:
    """The session of a settlement has been found."""

    partition: int
    psp_ref: str
    session_id: str
    currency: str | None


@dataclass(frozen=True, slots=True)
class TariffLook:
    """It is time to compare the tariffs of a station with what is assigned to it."""

    partition: int
    station_id: str
    at_ms: int


Event = Asked | CommandNews | VatChecked | SettlementPlaced | TariffLook | None
"""`None` for outcomes of commands that nothing here depends on."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A row of `billing.settlements`."""

    psp_ref: str
    station_id: str
    transaction_id: str | None
    status: str
    amount: Decimal
    settled_at_ms: int
    receipt_id: str | None
    receipt_url: str | None
    vat_company: str | None
    vat_number: str | None
    status_info: str | None
    received_at_ms: int
    session_id: str | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class VatQuestion:
    """A row of `billing.vat_questions`."""

    question_id: str
    station_id: str
    address: ReturnAddress
    vat_number: str
    evse_id: int | None
    asked_at_ms: int


@dataclass(slots=True)
class TariffStation:
    """A row of `billing.tariff_stations`."""

    station_id: str
    state: str
    booted_at_ms: int
    revision: int
    look_at_ms: int | None = None
    query_id: str | None = None
    attempts: int = 0
    problem: str | None = None


@dataclass(slots=True)
class StationTariff:
    """A row of `billing.station_tariffs`."""

    station_id: str
    evse_id: int
    station_tariff_id: str
    tariff_id: str
    tariff_version: int
    status: str
    reason: str | None
    command_id: str | None
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class StationSettings:
    """What operators said about a station: from `config.stations`."""

    site_id: str | None = None
    quirks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Token:
    """What is configured of an id token, as far as its price depends on it."""

    accepted: bool
    group_id: str | None = None
    language: str | None = None


DEFAULT_SETTINGS = StationSettings()


@dataclass(frozen=True, slots=True)
class DeskPolicy:
    """Settings that the fold reads."""

    vat_check: str = "syntax"
    """`syntax`, `off` (everything is rejected) or `service`."""
    vat_seconds: float = 15.0
    """How long a station waits for a service's word on a VAT number."""
    receipt_url: str = ""
    """Where a driver finds the receipt of a payment; `{psp_ref}` stands for it. Empty: stations are told none."""
    accept_unknown_tokens: bool = False
    """As sessions does: then a token that is not configured is told a price."""
    push_tariffs: bool = True
    """Whether 2.1 stations are told their default tariffs."""


@dataclass(slots=True)
class State:
    """The rows that the events of a batch touch, and what is to be written."""

    now_ms: int
    policy: DeskPolicy
    book: TariffBook
    settings: Mapping[str, StationSettings] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)
    settlements: dict[str, Settlement] = field(default_factory=dict)
    changed_settlements: set[str] = field(default_factory=set)
    questions: dict[str, VatQuestion] = field(default_factory=dict)
    new_questions: set[str] = field(default_factory=set)
    closed_questions: set[str] = field(default_factory=set)
    refusals: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By station the code and the time."""
    withdrawn_refusals: set[str] = field(default_factory=set)
    stations: dict[str, TariffStation] = field(default_factory=dict)
    changed_stations: set[str] = field(default_factory=set)
    tariffs: dict[tuple[str, int], StationTariff] = field(default_factory=dict)
    changed_tariffs: set[tuple[str, int]] = field(default_factory=set)
    removed_tariffs: set[tuple[str, int]] = field(default_factory=set)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """What happened how often, for the metrics."""

    def count(self, what: str, which: str) -> None:
        self.counts[what, which] = self.counts.get((what, which), 0) + 1

    def settings_of(self, station_id: str) -> StationSettings:
        return self.settings.get(station_id, DEFAULT_SETTINGS)


def question_id(call: StationCall) -> str:
    """The same for a CALL that is read again."""
    return make_id(call.station_id, call.connection_id, call.message_id, "vat")
