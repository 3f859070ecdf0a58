"""The fold of the desk: settlements, VAT numbers, prices for users, and the outcomes of commands. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import quote

import orjson

from busbar.ocpp.times import parse_timestamp, timestamp_ms
from busbar.ocpp.versions import Version
from busbar.pricing.assignment import SessionStart
from busbar.pricing.edges import PriceEdges, Situation
from busbar.pricing.price_text import own_texts, price_text
from busbar.records import Result, StationCall
from busbar.stream.interfaces import InvalidRecord
from busbar.stream.replies import reply, with_return_address
from services.billing.commands import SERVICE, command, make_id
from services.billing.costmsg import user_price_16
from services.billing.desk.model import (
    Asked,
    CommandNews,
    Event,
    Settlement,
    SettlementPlaced,
    State,
    TariffLook,
    VatChecked,
    VatQuestion,
    question_id,
)
from services.billing.desk.tariffs import fold_boot, fold_look, fold_news
from services.billing.desk.vat import UNAVAILABLE, VatAnswer
from services.billing.running import CostMode
from services.billing.vat_numbers import problem

PRICE_SECONDS = 30
"""A price comes this much too late after its Authorize: nobody waits for it any more."""
_UNKNOWN_ACTION = frozenset({"NotImplemented", "NotSupported"})
_MAX_URL = 2000


def apply(state: State, event: Event) -> list[Result]:
    """Fold one event into the state and return what is to be produced. Harmless when repeated.

    Raises:
        InvalidRecord: For an action that the desk does not handle.
    """
    match event:
        case Asked():
            return _fold_call(state, event)
        case CommandNews():
            return _fold_command(state, event)
        case VatChecked():
            return _fold_checked(state, event)
        case SettlementPlaced():
            return _fold_placed(state, event)
        case TariffLook():
            return fold_look(state, event)
        case None:
            return []


def _fold_call(state: State, event: Asked) -> list[Result]:
    call = event.call
    match call.action:
        case "NotifySettlement":
            return [_settle(state, call)]
        case "VatNumberValidation":
            return _validate(state, call)
        case "Authorize" if call.version is Version.V16:
            return _price_for_user(state, call)
        case "BootNotification":
            state.refusals.pop(call.station_id, None)
            state.withdrawn_refusals.add(call.station_id)
            return fold_boot(state, call) if call.version is Version.V21 else []
        case _:
            raise InvalidRecord("unowned-action", f"{call.version} {call.action}")


# Settlements


def _settle(state: State, call: StationCall) -> Result:
    """Keep what a terminal settled: once for each payment, and its newest word. Spec: OCPP 2.1 C24.

    A settlement may come before its transaction ends, and without one, when the driver gave up before charging.
    """
    settlement = read_settlement(call)
    known = state.settlements.get(settlement.psp_ref)
    if known is None or (settlement.received_at_ms >= known.received_at_ms and _differs(settlement, known)):
        state.settlements[settlement.psp_ref] = settlement
        state.changed_settlements.add(settlement.psp_ref)
        state.count("settlements", settlement.status if known is None else "changed")
    else:
        state.count("settlements", "repeated")
    answer = {}
    if state.policy.receipt_url and settlement.receipt_url is None:
        url = state.policy.receipt_url.replace("{psp_ref}", quote(settlement.psp_ref, safe=""))
        if len(url) <= _MAX_URL:
            answer["receiptUrl"] = url
    return reply(call, answer, SERVICE, call.received_at_ms)


def read_settlement(call: StationCall) -> Settlement:
    """A NotifySettlement as a row. What cannot be read of it is left out; the payload has been validated."""
    payload = call.payload
    try:
        settled_at_ms = timestamp_ms(parse_timestamp(str(payload.get("settlementTime"))))
    except ValueError:
        settled_at_ms = call.received_at_ms
    company = payload.get("vatCompany")
    return Settlement(
        psp_ref=_text(payload.get("pspRef")) or "",
        station_id=call.station_id,
        transaction_id=_text(payload.get("transactionId")),
        status=_text(payload.get("status")) or "",
        amount=_amount(payload.get("settlementAmount")),
        settled_at_ms=settled_at_ms,
        receipt_id=_text(payload.get("receiptId")),
        receipt_url=_text(payload.get("receiptUrl")),
        vat_company=_text(orjson.dumps(company).decode()) if isinstance(company, dict) else None,
        vat_number=_text(payload.get("vatNumber")),
        status_info=_text(payload.get("statusInfo")),
        received_at_ms=call.received_at_ms,
    )


def _differs(one: Settlement, other: Settlement) -> bool:
    """Whether two say different things; when they came and what was found out about them does not count."""
    return _said(one) != _said(other)


def _said(settlement: Settlement) -> tuple[Any, ...]:
    ours = {"received_at_ms", "session_id", "currency"}
    return tuple(getattr(settlement, name) for name in Settlement.__slots__ if name not in ours)


def _fold_placed(state: State, event: SettlementPlaced) -> list[Result]:
    known = state.settlements.get(event.psp_ref)
    if known is not None and known.session_id is None:
        fields = {name: getattr(known, name) for name in Settlement.__slots__}
        fields |= {"session_id": event.session_id, "currency": event.currency}
        state.settlements[event.psp_ref] = Settlement(**fields)
        state.changed_settlements.add(event.psp_ref)
    return []


# VAT numbers


def _validate(state: State, call: StationCall) -> list[Result]:
    """Answer a question about a VAT number, at once or when a service has been asked. Spec: OCPP 2.1 C25."""
    number = _text(call.payload.get("vatNumber")) or ""
    evse_id = call.payload.get("evseId")
    question = VatQuestion(
        question_id(call),
        call.station_id,
        call.return_address,
        number,
        evse_id if isinstance(evse_id, int) else None,
        call.received_at_ms,
    )
    answer = _answer_at_once(state, question)
    if answer is None:
        if question.question_id not in state.closed_questions:
            state.questions[question.question_id] = question
            state.new_questions.add(question.question_id)
        return []
    return [_vat_reply(state, question, answer, call.received_at_ms)]


def _answer_at_once(state: State, question: VatQuestion) -> VatAnswer | None:
    """What needs no service, or comes too late for one."""
    policy = state.policy
    if policy.vat_check == "off":
        return VatAnswer(False, reason="no VAT number is checked here", code="UnsupportedRequest")
    reason = problem(question.vat_number)
    if reason is not None:
        return VatAnswer(False, reason=reason)
    if policy.vat_check == "syntax":
        return VatAnswer(True)
    if state.now_ms - question.asked_at_ms > policy.vat_seconds * 1000:
        return UNAVAILABLE
    return None


def _fold_checked(state: State, event: VatChecked) -> list[Result]:
    question = state.questions.pop(event.question_id, None)
    if question is None or event.question_id in state.closed_questions:
        return []
    state.new_questions.discard(event.question_id)
    state.closed_questions.add(event.question_id)
    return [_vat_reply(state, question, event.answer, state.now_ms)]


def _vat_reply(state: State, question: VatQuestion, answer: VatAnswer, at_ms: int) -> Result:
    status = "Accepted" if answer.valid else "Rejected"
    payload: dict[str, Any] = {"vatNumber": question.vat_number, "status": status}
    if question.evse_id is not None:
        payload["evseId"] = question.evse_id
    if answer.company:
        payload["company"] = dict(answer.company)
    if not answer.valid:
        payload["statusInfo"] = {"reasonCode": answer.code, "additionalInfo": answer.reason}
    state.count("vat", "valid" if answer.valid else answer.code)
    return with_return_address(
        question.address,
        question.station_id,
        "result",
        produced_by=SERVICE,
        now_ms=at_ms,
        action="VatNumberValidation",
        payload=orjson.dumps(payload).decode(),
    )


# Prices for users


def _price_for_user(state: State, call: StationCall) -> list[Result]:
    """Tell a 1.6 station with a display of the California set what the user who presents a token will pay."""
    settings = state.settings_of(call.station_id)
    if CostMode.of(call.version.value, settings.quirks.get("cost")) is not CostMode.CALIFORNIA:
        return []
    id_token = str(call.payload.get("idTag") or "")
    token = state.tokens.get(id_token.strip().casefold())
    accepted = state.policy.accept_unknown_tokens if token is None else token.accepted
    if not accepted or state.now_ms - call.received_at_ms > PRICE_SECONDS * 1000:
        return []
    start = SessionStart(
        at_ms=call.received_at_ms,
        station_id=call.station_id,
        site_id=settings.site_id,
        token_key=id_token.strip().casefold() or None,
        group_id=token.group_id if token else None,
    )
    version = state.book.decide(start).version
    if version is None:
        return []
    time_zone = state.book.time_zone(settings.site_id)
    tariff = version.tariff
    texts = own_texts(tariff)
    language = token.language if token else None
    text = texts.pop(language, "") if language else ""
    if not text:
        edges = PriceEdges(tariff, time_zone)
        text = price_text(tariff, edges, Situation(call.received_at_ms), time_zone)
    others = {name: other for name, other in texts.items() if name}
    state.count("user_prices", "told")
    return [
        command(
            make_id(call.station_id, call.connection_id, call.message_id, "SetUserPrice"),
            call.station_id,
            "DataTransfer",
            user_price_16(id_token, text, others),
            call.received_at_ms,
            PRICE_SECONDS * 1000,
        )
    ]


# Outcomes of commands


def _fold_command(state: State, news: CommandNews) -> list[Result]:
    if news.action == "CostUpdated":
        if news.stage == "error" and news.error_code in _UNKNOWN_ACTION:
            state.withdrawn_refusals.discard(news.station_id)
            state.refusals[news.station_id] = (news.error_code, news.at_ms)
            state.count("cost_refusals", news.error_code)
        return []
    return fold_news(state, news)


def _text(value: Any) -> str | None:
    """A string that PostgreSQL can keep; `None` for anything but a string with something in it."""
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) and value else None


def _amount(value: Any) -> Decimal:
    """Money as the station wrote it: the shortest decimal that reads as the number in its JSON."""
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else Decimal(0)
