"""Stored passwords match the password they were made of, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from busbar.passwords import generate_password, hash_password, is_slow, verify_password

PEPPER = b"p" * 32


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100))
def test_a_keyed_password_matches_itself_alone(password: bytes, other: bytes) -> None:
    stored = hash_password(password, PEPPER, generated=True)
    assert stored.startswith("hmac-sha256$")
    assert verify_password(password, stored, PEPPER)
    assert verify_password(other, stored, PEPPER) == (other == password)
    assert not verify_password(password, stored, b"another pepper")


def test_a_chosen_password_is_hashed_slowly_and_without_the_pepper() -> None:
    stored = hash_password("correct horse", PEPPER, generated=False)
    assert is_slow(stored)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(b"correct horse", stored, b"")
    assert not verify_password(b"correct hors", stored, PEPPER)


def test_two_stations_with_one_password_store_different_texts() -> None:
    assert hash_password("a", PEPPER, generated=True) != hash_password("a", PEPPER, generated=True)
    assert hash_password("a", PEPPER, generated=False) != hash_password("a", PEPPER, generated=False)


def test_generated_passwords_suit_ocpp_16_and_2x() -> None:
    password = generate_password()
    assert len(password) == 40
    assert set(password) <= set("0123456789abcdef")
    assert password != generate_password()


@pytest.mark.parametrize(
    "stored", ["", "x", "hmac-sha256$", "hmac-sha256$a$b", "hmac-sha256$!!$!!", "sha256$YQ==$YQ=="]
)
@pytest.mark.parametrize("password", [b"", b"secret", b"x" * 2000])
def test_a_stored_text_of_another_form_matches_nothing(stored: str, password: bytes) -> None:
    assert not verify_password(password, stored, PEPPER)
    assert not verify_password(password, "$argon2id$" + stored, PEPPER)


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_an_empty_or_endless_password_is_not_stored(password: str) -> None:
    with pytest.raises(ValueError, match="a password has"):
        hash_password(password, PEPPER, generated=True)


def test_a_generated_password_needs_a_pepper() -> None:
    with pytest.raises(ValueError, match="pepper"):
        hash_password("x", b"", generated=True)
