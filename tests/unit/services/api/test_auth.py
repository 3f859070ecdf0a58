from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.auth import ROLES, ApiKey, hash_secret, new_key, read_authorization, split_key

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def key(role: str = "viewer", **fields: datetime) -> ApiKey:
    return ApiKey("id", hash_secret("s"), "name", role, **fields)


def test_a_new_key_is_read_back_into_what_is_stored_of_it() -> None:
    key_id, whole, key_hash = new_key()
    assert read_authorization(f"Bearer {whole}") == (key_id, whole.split("_", 2)[2])
    assert hash_secret(whole.split("_", 2)[2]) == key_hash
    assert whole not in (key_id, key_hash.hex())


def test_no_two_keys_are_alike() -> None:
    assert len({new_key()[1] for _ in range(100)}) == 100


def test_a_secret_may_hold_underscores() -> None:
    assert split_key("bsb_id_a_b__c") == ("id", "a_b__c")


@given(st.text() | st.binary().map(lambda raw: "Basic " + b64encode(raw).decode()))
def test_any_header_gives_a_key_or_nothing(header: str) -> None:
    for basic in (False, True):
        found = read_authorization(header, basic=basic)
        assert found is None or all(found)


def test_basic_will_do_only_where_it_is_asked_for() -> None:
    header = "Basic " + b64encode(b"anybody:bsb_id_secret").decode()
    assert read_authorization(header) is None
    assert read_authorization(header, basic=True) == ("id", "secret")


@pytest.mark.parametrize("held", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_includes_itself_and_those_below(held: str, needed: str) -> None:
    assert key(held).may(needed) == (ROLES.index(held) >= ROLES.index(needed))


def test_a_key_is_of_no_use_from_the_moment_on_that_it_expires_or_is_revoked() -> None:
    assert key().why_not(NOW) is None
    assert key(expires_at=NOW + timedelta(seconds=1)).why_not(NOW) is None
    assert key(expires_at=NOW).why_not(NOW) == "the key has expired"
    assert key(revoked_at=NOW).why_not(NOW) == "the key was revoked"
