"""Who says whether a VAT number is valid: its form alone, or a service that is asked over HTTP.

A service may be slow or away, so it is asked outside of the fold: the question is kept in the database, and answered
when the service has spoken, or with Rejected when the time is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from services.billing.vat_numbers import country_of, normalize

logger = logging.getLogger(__name__)

_HIDDEN = {"", "---"}
"""What VIES says instead of a name that a country keeps to itself."""


@dataclass(frozen=True, slots=True)
class VatAnswer:
    """What is known of a VAT number."""

    valid: bool
    company: Mapping[str, Any] | None = None
    """An AddressType. Spec: OCPP 2.1 VatNumberValidationResponse."""
    reason: str = ""
    """Why it is not valid, in a sentence."""
    code: str = "InvalidValue"
    """The reasonCode that goes with it."""


UNAVAILABLE = VatAnswer(False, reason="the number could not be checked in time", code="CheckUnavailable")


class VatChecker(Protocol):
    """Checks numbers beside the fold."""

    def ask(self, question_id: str, number: str) -> None:
        """Begin to look a number up. To ask twice is to ask once."""

    def answer(self, question_id: str) -> VatAnswer | None:
        """What came of it; `None` while it is not known."""

    def forget(self, question_id: str) -> None:
        """The question has been answered."""


@dataclass
class HttpVatChecker:
    """Asks a service by the protocol of the EU's VIES: POST countryCode and vatNumber, read valid, name and address.

    Args:
        url: Such as `https://ec.europa.eu/taxation_customs/vies/rest-api/check-vat-number`.
        timeout_seconds: For one question.
        limit: How many questions may be on their way; beyond it a question is answered with `UNAVAILABLE`.
    """

    url: str
    timeout_seconds: float = 10.0
    limit: int = 16
    _asked: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _answers: dict[str, VatAnswer] = field(default_factory=dict)

    def ask(self, question_id: str, number: str) -> None:
        if question_id in self._asked or question_id in self._answers:
            return
        if len(self._asked) >= self.limit:
            self._answers[question_id] = UNAVAILABLE
            return
        task = asyncio.get_running_loop().create_task(self._look_up(question_id, number), name="vat-check")
        self._asked[question_id] = task
        task.add_done_callback(lambda _: self._asked.pop(question_id, None))

    def answer(self, question_id: str) -> VatAnswer | None:
        return self._answers.get(question_id)

    def forget(self, question_id: str) -> None:
        self._answers.pop(question_id, None)
        task = self._asked.pop(question_id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Ask nothing any more."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_up(self, question_id: str, number: str) -> None:
        try:
            self._answers[question_id] = await self._request(number)
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError) as error:
            logger.warning("the VAT checker cannot be asked", extra={"error": repr(error)[:200]})
            self._answers[question_id] = UNAVAILABLE

    async def _request(self, number: str) -> VatAnswer:
        plain = normalize(number)
        body = {"countryCode": country_of(plain), "vatNumber": plain[2:]}
        timeout = aiohttp.ClientTimeout(total=self.timeout_seconds)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self.url, json=body, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ValueError(f"HTTP {response.status}")
            told = await response.json(content_type=None)
        return read_answer(told, body["countryCode"])


def read_answer(told: Any, country: str) -> VatAnswer:
    """What the service's JSON says.

    Raises:
        ValueError: It says neither that the number is valid nor that it is not.
    """
    if not isinstance(told, dict) or not isinstance(told.get("valid"), bool):
        raise ValueError("the service's answer has no `valid`")
    if not told["valid"]:
        return VatAnswer(False, reason="the number was not given to anybody")
    return VatAnswer(True, _company(told, country))


def _company(told: Mapping[str, Any], country: str) -> dict[str, str] | None:
    """An AddressType; none if the service keeps name or address to itself. The last line of an address is the city."""
    name, address = (str(told.get(part) or "").strip() for part in ("name", "address"))
    lines = [" ".join(line.split()) for line in address.splitlines() if line.strip()]
    if name in _HIDDEN or address in _HIDDEN or not lines:
        return None
    city = lines.pop() if len(lines) > 1 else lines[0]
    company = {"name": name[:50], "address1": lines[0][:100], "city": city[:100], "country": country}
    if len(lines) > 1:
        company["address2"] = ", ".join(lines[1:])[:100]
    return company
