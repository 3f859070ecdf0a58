"""Charge detail records: what they say, in the words of OCPI 2.3.0 too, and the credits that take them back.

Everything in a record comes from the session's events and from the configuration; no clock, so that a replay gives the
same bytes. Spec: OCPI 2.3.0 mod_cdrs.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from busbar.avro import encode
from busbar.pricing.bill import Bill
from busbar.pricing.explanation import explain
from busbar.pricing.jsontext import parse_json, serialize_json
from busbar.pricing.money import decimal_of
from busbar.pricing.ocpi_cdr import cdr_part, ocpi_tariffs, timestamp
from busbar.pricing.session_facts import Feed
from busbar.records import Result
from busbar.tariffs import Site
from services.billing.countries import ALPHA_3
from services.billing.model import Cdr, Charge, Policy

CDRS_TOPIC = "csms.cdrs"
_LONGEST_ID = 36
_CUT = "id_token_cut"
_LATE_REGISTER = "no_start_register"
_SLACK_MS = 1_000
_NATURES = {"Transaction.Begin": "Start", "Transaction.End": "End"}
_TOKEN_TYPES = {"": "RFID", "ISO14443": "RFID", "ISO15693": "RFID"}


def cdr_id(session_id: str, number: int) -> str:
    """The same for the same record, always: the UUID of version 5 in the session's namespace. Spec: RFC 9562 5.5."""
    namespace = bytes.fromhex(session_id.replace("-", ""))
    digest = hashlib.sha1(namespace + b"cdr %d" % number, usedforsecurity=False).digest()
    return str(UUID(bytes=digest[:16], version=5))  # `uuid5` makes a UUID of the namespace first


def make_cdr(charge: Charge, bill: Bill, feed: Feed, policy: Policy, site: Site | None) -> Cdr:
    """The next record of a session."""
    head, frame = charge.head, charge.frame
    number = charge.number + 1
    flags = _flags(charge, bill, feed)
    explanation = serialize_json(explain(bill, head.time_zone))
    priced = cdr_part(bill)
    if "tariffs" in priced:
        priced["tariffs"] = [tariff.source_text for tariff in ocpi_tariffs(bill)]
    said = {
        "session_id": None if charge.is_reservation else head.session_id,
        "cdr_token": _token(charge, policy, site),
        "auth_method": _auth_method(charge),
        "signed_data": signed_data(charge),
    }
    told = [explanation, serialize_json(said), frame.rung, head.tariff_id, str(head.tariff_version)]
    told += [f"{at_ms} {tariff_id} {version}" for at_ms, tariff_id, version in frame.changes]
    digest = hashlib.sha256("\n".join(told).encode("utf-8", "replace")).hexdigest()[:32]
    identity = cdr_id(head.session_id, number)
    document: dict[str, Any] = {
        **_operator(policy, site),
        "id": identity,
        "start_date_time": priced.pop("start_date_time"),
        "end_date_time": priced.pop("end_date_time"),
        **{name: value for name, value in said.items() if value is not None},
        "cdr_location": _location(charge, site),
        **priced,
        "credit": False,
        "last_updated": timestamp(charge.received_ms),
    }
    return Cdr(
        cdr_id=identity,
        session_id=head.session_id,
        number=number,
        credit_reference_id="",
        station_id=head.station_id,
        site_id=head.site_id,
        id_token=head.id_token,
        started_ms=bill.start_ms,
        ended_ms=bill.end_ms,
        currency=bill.currency,
        total_excl=bill.total.excl_tax,
        total_incl=bill.total.incl_tax,
        energy_uwh=int(bill.energy_wh.scaleb(6)),
        energy_rung=frame.rung,
        tariff_id=head.tariff_id,
        tariff_version=head.tariff_version,
        flags=flags,
        ocpi=serialize_json(document),
        bill=explanation,
        updated_ms=charge.received_ms,
        digest=digest,
    )


def credit_of(cdr: Cdr, at_ms: int) -> Cdr:
    """The credit that takes a record back: a copy with a negative total. Spec: mod_cdrs_credit_cdrs."""
    identity = f"{cdr.cdr_id}-C"
    document = parse_json(cdr.ocpi)
    document |= {
        "id": identity,
        "total_cost": _negative(document["total_cost"]),
        "credit": True,
        "credit_reference_id": cdr.cdr_id,
        "last_updated": timestamp(at_ms),
    }
    return replace(
        cdr,
        cdr_id=identity,
        credit_reference_id=cdr.cdr_id,
        total_excl=-cdr.total_excl,
        total_incl=-cdr.total_incl,
        ocpi=serialize_json(document),
        updated_ms=at_ms,
    )


def cdr_result(cdr: Cdr, partition: int) -> Result:
    """The record on its topic, in the partition of its station: a credit comes before what replaces the credited."""
    value = {
        "cdr_id": cdr.cdr_id,
        "session_id": cdr.session_id,
        "number": cdr.number,
        "credit": cdr.credit,
        "credit_reference_id": cdr.credit_reference_id,
        "station_id": cdr.station_id,
        "site_id": cdr.site_id,
        "id_token": cdr.id_token,
        "started_at": cdr.started_ms,
        "ended_at": cdr.ended_ms,
        "currency": cdr.currency,
        "total_cost_excl_vat": cdr.total_excl,
        "total_cost_incl_vat": cdr.total_incl,
        "energy_wh": decimal_of(cdr.energy_uwh, 6),
        "energy_rung": cdr.energy_rung,
        "tariff_id": cdr.tariff_id,
        "tariff_version": cdr.tariff_version,
        "flags": list(cdr.flags),
        "ocpi": cdr.ocpi,
        "bill": cdr.bill,
        "last_updated": cdr.updated_ms,
    }
    key = cdr.cdr_id.encode()
    return Result(CDRS_TOPIC, key, encode("csms.Cdr", value), partition=partition, timestamp_ms=cdr.updated_ms)


def signed_data(charge: Charge) -> dict[str, Any] | None:
    """The signed meter data of a session, byte for byte and whatever its length; a repeated text is there once.

    Spec: mod_cdrs_signed_data_class. One encoding and one key: those of the first that has any.
    """
    values: dict[tuple[str, str], dict[str, str]] = {}
    for _, context, data, *_ in sorted(charge.signed, key=_when):
        nature = _NATURES.get(context, "Intermediate")
        values.setdefault((nature, data), {"nature": nature, "plain_data": _plain_data(data), "signed_data": data})
    if not values:
        return None
    found: dict[str, Any] = {"encoding_method": next((each[3] for each in charge.signed if each[3]), "")}
    public_key = next((each[5] for each in charge.signed if each[5]), "")
    if public_key:
        found["public_key"] = public_key
    return found | {"signed_values": list(values.values())}


def _when(signed: tuple[int | None, str, str, str, str, str]) -> tuple[int, str, str]:
    """Order that does not depend on when the events came."""
    at_ms, context, data, *_ = signed
    return at_ms or 0, context, data


def _plain_data(data: str) -> str:
    """What is signed, as people can read it: OCMF carries it in the open."""
    if data.startswith("OCMF|"):
        payload, _, _ = data[5:].rpartition("|")
        return payload or data[5:]
    return ""


def _flags(charge: Charge, bill: Bill, feed: Feed) -> tuple[str, ...]:
    """What was noticed of the session, then of its price."""
    found = dict.fromkeys(charge.flags)
    found |= dict.fromkeys(note.value for note in bill.notes)
    if charge.remark:
        found[charge.remark] = None
    if len(charge.head.id_token) > _LONGEST_ID:
        found[_CUT] = None
    late = feed.first_ms is not None and feed.start_ms is not None and feed.first_ms > feed.start_ms + _SLACK_MS
    if late and charge.frame.rung == "samples":
        found[_LATE_REGISTER] = None
    return tuple(found)


def _operator(policy: Policy, site: Site | None) -> dict[str, str]:
    country = (site.operator_country if site else None) or policy.country_code
    party = (site.party_id if site else None) or policy.party_id
    return {name: text for name, text in (("country_code", country), ("party_id", party)) if text}


def _token(charge: Charge, policy: Policy, site: Site | None) -> dict[str, str]:
    """The token as it was used. Whose contract it is, nobody here knows: that is the token itself."""
    head = charge.head
    uid = head.id_token[:_LONGEST_ID]
    token_type = _TOKEN_TYPES.get(head.id_token_type, "OTHER")
    if not uid:
        uid, token_type = head.session_id, "AD_HOC_USER"
    return {**_operator(policy, site), "uid": uid, "type": token_type, "contract_id": uid}


def _auth_method(charge: Charge) -> str:
    """Spec: mod_cdrs AuthMethod."""
    if charge.head.remote_start_id is not None or charge.is_reservation:
        return "COMMAND"
    return "WHITELIST" if charge.offline else "AUTH_REQUEST"


def _location(charge: Charge, site: Site | None) -> dict[str, Any]:
    """Where it was, as far as it is configured; what plug it was, is not."""
    head = charge.head
    evse = _identifier(f"{head.station_id}/{head.evse_id}")
    found: dict[str, Any] = {"id": _identifier(head.site_id or head.station_id)}
    if site is not None:
        country = ALPHA_3.get(site.country_code or "")
        known = (
            ("name", site.name),
            ("address", site.address),
            ("city", site.city),
            ("postal_code", site.postal_code),
            ("country", country),
        )
        found |= {name: text for name, text in known if text}
        if site.latitude is not None and site.longitude is not None:
            found["coordinates"] = {"latitude": _degrees(site.latitude), "longitude": _degrees(site.longitude)}
    return found | {"evse_uid": evse, "evse_id": evse, "connector_id": str(head.connector_id)}


def _degrees(value: Decimal) -> str:
    """Spec: mod_locations GeoLocation: up to seven decimals."""
    return f"{round(value, 7):f}"


def _identifier(text: str) -> str:
    """An id that OCPI has room for; a longer one becomes a UUID that is the same every time."""
    return text if len(text) <= _LONGEST_ID else str(uuid5(NAMESPACE_OID, text))


def _negative(price: dict[str, Any]) -> dict[str, Any]:
    """A Price with its amounts taken back."""
    found = {**price, "before_taxes": -price["before_taxes"]}
    if "taxes" in price:
        found["taxes"] = [{**tax, "amount": -tax["amount"]} for tax in price["taxes"]]
    return found
