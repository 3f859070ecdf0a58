"""The payloads of answers, as each version has them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson

from busbar.ocpp.times import format_timestamp_ms
from busbar.ocpp.versions import Version
from services.sessions.tokens import Authorization

_PARENT_ID_TAG_LENGTH = 20
_LANGUAGE_LENGTH = 8
_GROUP_LENGTH = {Version.V201: 36, Version.V21: 255}
_LAST_MS = 253_402_300_799_999


def id_tag_info(authorization: Authorization) -> dict[str, Any]:
    """IdTagInfo of 1.6. Spec: OCPP 1.6 §7.27."""
    info: dict[str, Any] = {"status": authorization.status_16}
    if authorization.cache_until_ms is not None:
        info["expiryDate"] = _timestamp(authorization.cache_until_ms)
    if 0 < len(authorization.group_id) <= _PARENT_ID_TAG_LENGTH:
        info["parentIdTag"] = authorization.group_id
    return info


def id_token_info(authorization: Authorization, version: Version) -> dict[str, Any]:
    """IdTokenInfoType of 2.x."""
    info: dict[str, Any] = {"status": authorization.status}
    if authorization.cache_until_ms is not None:
        info["cacheExpiryDateTime"] = _timestamp(authorization.cache_until_ms)
    if 0 < len(authorization.group_id) <= _GROUP_LENGTH[version]:
        info["groupIdToken"] = {"idToken": authorization.group_id, "type": "Central"}
    if 0 < len(authorization.language) <= _LANGUAGE_LENGTH:
        info["language1"] = authorization.language
    return info


def authorize_answer(
    authorization: Authorization, version: Version, certificate_status: str = "", tariff: str | None = None
) -> dict[str, Any]:
    """The answer to Authorize.

    Args:
        tariff: The JSON text of a TariffType. 2.1 only.
    """
    if not version.is_v2:
        return {"idTagInfo": id_tag_info(authorization)}
    answer: dict[str, Any] = {"idTokenInfo": id_token_info(authorization, version)}
    if certificate_status:
        answer["certificateStatus"] = certificate_status
    if tariff:
        answer["tariff"] = orjson.Fragment(tariff)
    return answer


def start_answer(transaction_id: int, authorization: Authorization) -> dict[str, Any]:
    """The answer to StartTransaction."""
    return {"transactionId": transaction_id, "idTagInfo": id_tag_info(authorization)}


def stop_answer(authorization: Authorization | None) -> dict[str, Any]:
    """The answer to StopTransaction: it speaks of the idTag only if there was one."""
    return {} if authorization is None else {"idTagInfo": id_tag_info(authorization)}


def transaction_event_answer(
    authorization: Authorization | None,
    version: Version,
    total_cost: Decimal | None = None,
    limit: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer to TransactionEvent: it speaks of the id token only if there was one. Spec: OCPP 2.0.1 E01.FR.11.

    Args:
        total_cost: Running, or final in the answer to Ended; 0 says that it is free. Spec: I02.FR.01, I03.FR.04.
        limit: A TransactionLimitType, which only 2.1 has.
    """
    answer: dict[str, Any] = {}
    if total_cost is not None:
        answer["totalCost"] = float(total_cost)
    if limit and version is Version.V21:
        answer["transactionLimit"] = limit
    if authorization is not None:
        answer["idTokenInfo"] = id_token_info(authorization, version)
    return answer


def _timestamp(unix_ms: int) -> str:
    return format_timestamp_ms(max(0, min(unix_ms, _LAST_MS)))
