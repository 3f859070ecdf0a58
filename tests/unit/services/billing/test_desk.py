"""The desk: settlements, VAT numbers, prices for users."""

from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest

from busbar.avro import decode
from busbar.ocpp.validation import validate_request, validate_response
from busbar.ocpp.versions import Version
from busbar.pricing.assignment import Assignment, Scope
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.records import Result, StationCall
from busbar.stream.interfaces import InvalidRecord
from busbar.tariffs import Configuration, StoredVersion, TariffBook
from services.billing.desk.core import PRICE_SECONDS, apply
from services.billing.desk.model import (
    Asked,
    CommandNews,
    DeskPolicy,
    SettlementPlaced,
    State,
    StationSettings,
    Token,
    VatChecked,
    question_id,
)
from services.billing.desk.vat import UNAVAILABLE, VatAnswer
from tests.unit.pricing.builders import component, element, tariff_json

NOW_MS = 1_772_366_400_000
"""2026-03-01T12:00:00Z"""
SESSION_ID = "5f2b8c1e-6f0c-8a3e-9d37-2b0f4a6f1c55"
_numbers = itertools.count(1)


def book(*assignments: Assignment, **tariffs: dict[str, Any]) -> TariffBook:
    """Tariffs by id; each is assigned to everybody unless assignments are given."""
    found = TariffBook("Europe/Berlin")
    versions = tuple(StoredVersion(name, 1, serialize_json(source), 0) for name, source in tariffs.items())
    default = tuple(Assignment(name, Scope.DEFAULT) for name in tariffs)
    found.accept(Configuration(revision=1, versions=versions, assignments=assignments or default))
    return found


TARIFF = tariff_json(element(component("ENERGY", "0.5")))


def new_state(policy: DeskPolicy | None = None, **fields: Any) -> State:
    return State(now_ms=NOW_MS, policy=policy or DeskPolicy(), book=fields.pop("book", None) or TariffBook(), **fields)


def asked(action: str, payload: dict[str, Any], version: Version = Version.V21, *, at_ms: int = NOW_MS) -> Asked:
    call = StationCall(
        station_id="CS-1",
        connection_id="connection-1",
        edge="edge-0",
        edge_partition=3,
        version=version,
        sequence=1,
        message_id=f"message-{next(_numbers)}",
        received_at_ms=at_ms,
        action=action,
        payload=payload,
    )
    return Asked(2, call)


def sent(results: list[Result]) -> list[dict[str, Any]]:
    """What was produced, read."""
    found = []
    for result in results:
        value = decode(result.value)[1]
        value["payload"] = parse_json(value["payload"])
        found.append(value)
    return found


def settlement(at_ms: int = NOW_MS, **fields: Any) -> Asked:
    payload = {
        "pspRef": "PSP/1",
        "status": "Settled",
        "settlementAmount": 12.35,
        "settlementTime": "2026-03-01T11:59:00Z",
        "transactionId": "tx-1",
    }
    merged = {name: value for name, value in (payload | fields).items() if value is not None}
    return asked("NotifySettlement", merged, at_ms=at_ms)


class TestSettlements:
    def test_it_is_kept_and_answered(self) -> None:
        state = new_state()
        (answer,) = sent(apply(state, settlement(vatCompany={"name": "ACME"}, vatNumber="DE1")))
        assert (answer["kind"], answer["action"], answer["payload"]) == ("result", "NotifySettlement", {})
        row = state.settlements["PSP/1"]
        assert (row.status, str(row.amount), row.transaction_id) == ("Settled", "12.35", "tx-1")
        assert (row.settled_at_ms, row.vat_company) == (NOW_MS - 60_000, '{"name":"ACME"}')
        assert state.changed_settlements == {"PSP/1"}

    def test_the_same_again_gets_the_same_answer_and_writes_nothing(self) -> None:
        policy = DeskPolicy(receipt_url="https://pay.example/{psp_ref}")
        state = new_state(policy)
        (first,) = sent(apply(state, settlement()))
        known = dict(state.settlements)
        state = new_state(policy, settlements=known)
        (again,) = sent(apply(state, settlement(at_ms=NOW_MS + 60_000)))
        assert again["payload"] == first["payload"] == {"receiptUrl": "https://pay.example/PSP%2F1"}
        assert not state.changed_settlements

    def test_a_payment_that_succeeds_later_counts(self) -> None:
        state = new_state()
        apply(state, settlement(status="Failed", statusInfo="declined"))
        apply(state, settlement(at_ms=NOW_MS + 1))
        assert (state.settlements["PSP/1"].status, state.settlements["PSP/1"].status_info) == ("Settled", None)
        apply(state, settlement(status="Failed", at_ms=NOW_MS - 1))  # read again, out of order
        assert state.settlements["PSP/1"].status == "Settled"

    def test_it_needs_no_transaction(self) -> None:
        state = new_state()
        apply(state, settlement(status="Canceled", transactionId=None, settlementAmount=0))
        row = state.settlements["PSP/1"]
        assert row.transaction_id is None
        assert row.amount == 0

    def test_its_session_is_found_when_it_comes(self) -> None:
        state = new_state()
        apply(state, settlement())
        apply(state, SettlementPlaced(2, "PSP/1", SESSION_ID, "EUR"))
        assert (state.settlements["PSP/1"].session_id, state.settlements["PSP/1"].currency) == (SESSION_ID, "EUR")
        apply(state, SettlementPlaced(2, "PSP/1", "another", "USD"))
        assert state.settlements["PSP/1"].session_id == SESSION_ID

    def test_a_receipt_of_the_stations_own_is_left_alone(self) -> None:
        state = new_state(DeskPolicy(receipt_url="https://pay.example/{psp_ref}"))
        (answer,) = sent(apply(state, settlement(receiptUrl="https://psp.example/1", settlementTime="never")))
        assert answer["payload"] == {}
        assert state.settlements["PSP/1"].settled_at_ms == NOW_MS


def vat(number: str = "DE136695976", *, at_ms: int = NOW_MS, **fields: Any) -> Asked:
    return asked("VatNumberValidation", {"vatNumber": number, **fields}, at_ms=at_ms)


class TestVatNumbers:
    def test_by_their_form_they_are_answered_at_once(self) -> None:
        (good,) = sent(apply(new_state(), vat(evseId=2)))
        assert good["payload"] == {"vatNumber": "DE136695976", "status": "Accepted", "evseId": 2}
        (bad,) = sent(apply(new_state(), vat("DE136695977")))
        assert (bad["payload"]["status"], bad["payload"]["vatNumber"]) == ("Rejected", "DE136695977")
        assert bad["payload"]["statusInfo"]["additionalInfo"] == "its check digits do not fit"

    def test_nothing_is_confirmed_where_nothing_is_checked(self) -> None:
        (answer,) = sent(apply(new_state(DeskPolicy(vat_check="off")), vat()))
        assert answer["payload"]["status"] == "Rejected"

    def test_a_service_is_asked_outside_and_the_answer_goes_back_where_the_question_came_from(self) -> None:
        state = new_state(DeskPolicy(vat_check="service"))
        question = vat()
        assert apply(state, question) == []
        key = question_id(question.call)
        assert state.new_questions == {key}
        company = {"name": "ACME", "address1": "Street 1", "city": "Berlin", "country": "DE"}
        (answer,) = sent(apply(state, VatChecked(2, key, VatAnswer(True, company))))
        assert (answer["kind"], answer["connection_id"]) == ("result", "connection-1")
        assert answer["message_id"] == question.call.message_id
        assert answer["payload"] == {"vatNumber": "DE136695976", "status": "Accepted", "company": company}
        assert state.closed_questions == {key}
        assert apply(state, VatChecked(2, key, VatAnswer(True))) == []
        assert not state.new_questions

    def test_a_number_without_form_bothers_no_service(self) -> None:
        state = new_state(DeskPolicy(vat_check="service"))
        (answer,) = sent(apply(state, vat("nonsense")))
        assert answer["payload"]["status"] == "Rejected"

    def test_a_question_that_comes_too_late_is_rejected(self) -> None:
        state = new_state(DeskPolicy(vat_check="service", vat_seconds=15))
        (answer,) = sent(apply(state, vat(at_ms=NOW_MS - 15_001)))
        assert answer["payload"]["statusInfo"]["reasonCode"] == UNAVAILABLE.code
        assert not state.questions

    def test_answers_are_valid_by_the_schema(self) -> None:
        for state, question in (
            (new_state(), vat(evseId=1)),
            (new_state(), vat("x" * 20)),
            (new_state(DeskPolicy(vat_check="off")), vat()),
        ):
            (answer,) = sent(apply(state, question))
            validate_response(Version.V21, "VatNumberValidation", answer["payload"], strict=True)


CALIFORNIA = {"CS-1": StationSettings("S1", {"cost": "california"})}
ACCEPTED = {"tag": Token(True, "fleet", "de")}


def authorize(*, at_ms: int = NOW_MS, version: Version = Version.V16) -> Asked:
    return asked("Authorize", {"idTag": "TAG"}, version, at_ms=at_ms)


class TestPricesForUsers:
    def test_a_display_is_told_what_the_user_will_pay(self) -> None:
        state = new_state(book=book(T=TARIFF), settings=CALIFORNIA, tokens=ACCEPTED)
        event = authorize()
        (command,) = sent(apply(state, event))
        assert (command["action"], command["requested_by"]) == ("DataTransfer", "billing")
        assert command["deadline_at"] == command["requested_at"] + PRICE_SECONDS * 1000
        assert command["payload"]["messageId"] == "SetUserPrice"
        data = parse_json(command["payload"]["data"])
        assert data == {"idToken": "TAG", "priceText": "EUR 0.50/kWh"}
        assert sent(apply(state, event))[0]["command_id"] == command["command_id"]

    def test_the_tariffs_own_words_come_in_the_users_language(self) -> None:
        words = [{"language": "en", "text": "half a euro"}, {"language": "de", "text": "ein halber Euro"}]
        spoken = tariff_json(element(component("ENERGY", "0.5")), tariff_alt_text=words)
        state = new_state(book=book(T=spoken), settings=CALIFORNIA, tokens=ACCEPTED)
        data = parse_json(sent(apply(state, authorize()))[0]["payload"]["data"])
        assert data["priceText"] == "ein halber Euro"
        assert data["priceTextExtra"] == [{"format": "UTF8", "language": "en", "content": "half a euro"}]

    def test_it_is_the_price_of_that_user(self) -> None:
        cheap = tariff_json(element(component("ENERGY", "0.1")))
        tariffs = book(Assignment("T", Scope.DEFAULT), Assignment("F", Scope.TOKEN_GROUP, "fleet"), T=TARIFF, F=cheap)
        state = new_state(book=tariffs, settings=CALIFORNIA, tokens=ACCEPTED)
        assert "EUR 0.10/kWh" in sent(apply(state, authorize()))[0]["payload"]["data"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"settings": {}},
            {"settings": {"CS-1": StationSettings(None, {"cost": "none"})}},
            {"tokens": {}},
            {"tokens": {"tag": Token(False)}},
            {"book": TariffBook()},
        ],
    )
    def test_nobody_else_is_told(self, fields: dict[str, Any]) -> None:
        told: dict[str, Any] = {"book": book(T=TARIFF), "settings": CALIFORNIA, "tokens": ACCEPTED} | fields
        assert apply(new_state(**told), authorize()) == []

    def test_where_unknown_tokens_charge_they_are_told_a_price(self) -> None:
        policy = DeskPolicy(accept_unknown_tokens=True)
        assert apply(new_state(policy, book=book(T=TARIFF), settings=CALIFORNIA), authorize())

    def test_nobody_waits_for_a_price_that_comes_too_late(self) -> None:
        state = new_state(book=book(T=TARIFF), settings=CALIFORNIA, tokens=ACCEPTED)
        assert apply(state, authorize(at_ms=NOW_MS - PRICE_SECONDS * 1000 - 1)) == []

    def test_the_command_is_valid_by_the_schema(self) -> None:
        state = new_state(book=book(T=TARIFF), settings=CALIFORNIA, tokens=ACCEPTED)
        payload = orjson.loads(decode(apply(state, authorize())[0].value)[1]["payload"])
        validate_request(Version.V16, "DataTransfer", payload, strict=True)


class TestCostRefusals:
    def news(self, stage: str = "error", code: str = "NotSupported") -> CommandNews:
        return CommandNews(2, "CS-1", "command-1", "CostUpdated", stage, {}, code, NOW_MS)

    def test_a_station_that_knows_no_cost_updated_is_left_alone_until_it_boots(self) -> None:
        state = new_state()
        apply(state, self.news())
        assert state.refusals == {"CS-1": ("NotSupported", NOW_MS)}
        apply(state, asked("BootNotification", {}, Version.V201))
        assert (state.refusals, state.withdrawn_refusals) == ({}, {"CS-1"})
        apply(state, self.news())
        assert (state.refusals, state.withdrawn_refusals) == ({"CS-1": ("NotSupported", NOW_MS)}, set())

    def test_other_outcomes_refuse_nothing(self) -> None:
        state = new_state()
        apply(state, self.news(code="InternalError"))
        apply(state, self.news("timeout", ""))
        apply(state, self.news("answered", ""))
        assert state.refusals == {}


def test_what_the_desk_does_not_handle_is_a_dead_letter() -> None:
    with pytest.raises(InvalidRecord, match="unowned-action"):
        apply(new_state(), asked("Authorize", {}, Version.V201))
