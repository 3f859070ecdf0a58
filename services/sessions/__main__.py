"""`python -m services.sessions`: one worker of the sessions service."""

from __future__ import annotations

from busbar.service import run_service
from services.sessions.app import main

if __name__ == "__main__":
    run_service("sessions", main, "127.0.0.1:9331")
