"""DataTransfer: the table of vendors, and the file that it is read from."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from busbar.config import ConfigError
from busbar.ocpp.versions import Version
from services.stations.data_transfer import DataTransferTable, read_table
from tests.unit.services.stations.cases import answer, event, fold, new_state

PNC = "org.openchargealliance.iso15118pnc"


@pytest.mark.parametrize("version", list(Version))
def test_an_unknown_vendor_and_an_unknown_message_are_told_apart(version: Version) -> None:
    def say(**payload: str) -> str:
        return str(answer(fold(new_state(), event(version, "DataTransfer", dict(payload))))["status"])

    assert say(vendorId="com.example") == "UnknownVendorId"
    assert say(vendorId=PNC, messageId="Nonsense") == "UnknownMessageId"
    assert say(vendorId=PNC) == "UnknownMessageId"
    assert say(vendorId=PNC, messageId="SignCertificate") == "Accepted"


def test_ids_are_compared_without_regard_to_case() -> None:
    table = read_table()
    assert table.answer(Version.V16, {"vendorId": PNC.upper(), "messageId": "signcertificate"})["status"] == "Accepted"


def test_data_travels_as_json_text_in_1_6_and_as_it_is_in_2_x() -> None:
    payload = {"vendorId": PNC, "messageId": "GetCertificateStatus"}
    table = read_table()
    assert orjson.loads(table.answer(Version.V16, payload)["data"]) == {"status": "Failed"}
    assert table.answer(Version.V201, payload)["data"] == {"status": "Failed"}


def test_a_data_transfer_is_kept_whatever_it_is_answered_with() -> None:
    state = new_state()
    fold(state, event(Version.V16, "DataTransfer", {"vendorId": "com.example", "data": "{}"}))
    (kept,) = state.notifications.values()
    assert orjson.loads(kept.payload) == {"vendorId": "com.example", "data": "{}"}


def test_a_star_stands_for_any_message_and_for_none(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text('[vendors."com.example".messages."*"]\nstatus = "Rejected"\ndata = "no"\n')
    table = read_table(path)
    for payload in ({"vendorId": "com.example"}, {"vendorId": "com.example", "messageId": "Anything"}):
        assert table.answer(Version.V16, payload) == {"status": "Rejected", "data": "no"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("vendors = ", "table.toml"),
        ('[vendors."com.example"]\n', "has no messages"),
        ('[vendors."com.example".messages.M]\nstatus = "Perhaps"\n', "needs a status"),
    ],
)
def test_a_table_that_makes_no_sense_stops_the_service_with_its_name(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        read_table(path)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_table(tmp_path / "nowhere.toml")


def test_an_empty_table_knows_nobody() -> None:
    assert DataTransferTable().answer(Version.V21, {"vendorId": "x"}) == {"status": "UnknownVendorId"}
