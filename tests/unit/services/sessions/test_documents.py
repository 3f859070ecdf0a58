"""What is written about sessions is what they do."""

from __future__ import annotations

import re
from pathlib import Path

from services.sessions import config
from services.sessions.energy import RUNGS
from services.sessions.flags import flag_names

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "sessions.md").read_text()


def test_every_flag_rung_and_setting_is_in_the_data_dictionary() -> None:
    listed = set(re.findall(r"(?m)^\| `([^`]+)` \|", PAGE))
    settings = set(re.findall(r"BUSBAR_SESSIONS_[A-Z_]+", Path(config.__file__).read_text()))
    assert len(flag_names(2**32 - 1)) == 32
    assert set(flag_names(2**32 - 1)) | set(RUNGS) | settings <= listed
