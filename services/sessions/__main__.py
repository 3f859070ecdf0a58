"""`python -m services.sessions`: one worker of the sessions service."""

from __future__ import annotations

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.sessions.app import main

    run_service("sessions", main, "127.0.0.1:9331")
