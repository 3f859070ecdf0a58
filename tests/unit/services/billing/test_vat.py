"""VAT numbers: which can be one, and how a service is asked about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from services.billing.desk.vat import UNAVAILABLE, HttpVatChecker, VatAnswer, read_answer
from services.billing.vat_numbers import normalize, problem

REAL = [
    "ATU13585627",
    "BE0428759497",
    "CHE107787577IVA",
    "DE136695976",
    "DK13585628",
    "EL094259216",
    "FI20774740",
    "FR40303265045",
    "GB980780684",
    "GR094259216",
    "HR33392005961",
    "IE6433435F",
    "IT00743110157",
    "LU15027442",
    "NL004495445B01",
    "PL8567346215",
    "PT501964843",
    "SE123456789701",
]


@pytest.mark.parametrize("number", [*REAL, "de 136.695-976", " IT 00743110157 "])
def test_numbers_that_were_given_can_be_one(number: str) -> None:
    assert problem(number) is None


@pytest.mark.parametrize("number", [number for number in REAL if number[:2] in "ATBEDEDKFIFRHRITLUPLPT"])
def test_one_wrong_digit_is_noticed(number: str) -> None:
    last = str((int(number[-1]) + 1) % 10)
    assert problem(number[:-1] + last) == "its check digits do not fit"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("D" * 21, "too long"),
        ("136695976", "no country|known country"),
        ("ZZ123", "known country"),
        ("DE12345678", "form of DE"),
        ("GR09425921", "form of EL"),
        ("DE13669597\u0666", "form of DE"),
        ("DE" + "9" * 9, "check digits"),
    ],
)
def test_what_cannot_be_one_is_refused_with_the_reason(number: str, reason: str) -> None:
    found = problem(number)
    assert found is not None
    assert any(each in found for each in reason.split("|"))


def test_spaces_and_punctuation_do_not_count() -> None:
    assert normalize("de 136.695-976") == "DE136695976"


class TestAnswers:
    def test_name_and_address_become_a_company(self) -> None:
        told = {"valid": True, "name": "ACME BV", "address": "Hoofdstraat  1\nGebouw B\n1234 AB Utrecht"}
        assert read_answer(told, "NL").company == {
            "name": "ACME BV",
            "address1": "Hoofdstraat 1",
            "address2": "Gebouw B",
            "city": "1234 AB Utrecht",
            "country": "NL",
        }

    @pytest.mark.parametrize("hidden", [{}, {"name": "---", "address": "---"}, {"name": "ACME"}, {"address": "x"}])
    def test_what_a_country_hides_is_left_out(self, hidden: dict[str, str]) -> None:
        assert read_answer({"valid": True, **hidden}, "DE") == VatAnswer(True, None)

    @pytest.mark.parametrize("told", [None, [], {}, {"valid": "yes"}, "x"])
    def test_an_answer_that_says_nothing_is_none(self, told: Any) -> None:
        with pytest.raises(ValueError, match="valid"):
            read_answer(told, "DE")


@asynccontextmanager
async def service(answer: Any, status: int = 200, asked: list[Any] | None = None) -> AsyncIterator[str]:
    """A VAT checker on loopback. An answer of `None` never comes."""

    async def handle(request: web.Request) -> web.Response:
        if asked is not None:
            asked.append(await request.json())
        if answer is None:
            await asyncio.sleep(60)
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_post("/check", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/check"
    finally:
        await runner.cleanup()


async def outcome(checker: HttpVatChecker, question_id: str = "q") -> VatAnswer:
    async with asyncio.timeout(20):
        while True:
            answer = checker.answer(question_id)
            if answer is not None:
                return answer
            await asyncio.sleep(0.01)


class TestTheService:
    async def test_it_is_asked_with_country_and_number_apart(self) -> None:
        asked: list[Any] = []
        async with service({"valid": True}, asked=asked) as url:
            checker = HttpVatChecker(url)
            checker.ask("q", "GR 094259216")
            checker.ask("q", "GR 094259216")
            assert await outcome(checker) == VatAnswer(True)
            await checker.close()
        assert asked == [{"countryCode": "EL", "vatNumber": "094259216"}]

    @pytest.mark.parametrize(("answer", "status"), [({"valid": True}, 503), ("nonsense", 200), ({}, 200)])
    async def test_a_service_that_fails_leaves_the_number_unchecked(self, answer: Any, status: int) -> None:
        async with service(answer, status) as url:
            checker = HttpVatChecker(url)
            checker.ask("q", "DE136695976")
            assert await outcome(checker) == UNAVAILABLE
            await checker.close()

    async def test_a_service_that_is_away_leaves_the_number_unchecked(self) -> None:
        checker = HttpVatChecker("http://127.0.0.1:1/check")
        checker.ask("q", "DE136695976")
        assert await outcome(checker) == UNAVAILABLE

    async def test_a_service_that_says_nothing_is_given_up(self) -> None:
        async with service(None) as url:
            checker = HttpVatChecker(url, timeout_seconds=0.2)
            checker.ask("q", "DE136695976")
            assert checker.answer("q") is None
            assert await outcome(checker) == UNAVAILABLE
            await checker.close()

    async def test_too_many_questions_are_answered_at_once(self) -> None:
        async with service(None) as url:
            checker = HttpVatChecker(url, limit=2)
            for number in range(3):
                checker.ask(f"q{number}", "DE136695976")
            assert [checker.answer(f"q{number}") for number in range(3)] == [None, None, UNAVAILABLE]
            checker.forget("q2")
            assert checker.answer("q2") is None
            await checker.close()
