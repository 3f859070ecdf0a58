"""`python -m services.stations`: one worker of the stations service."""

from __future__ import annotations

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.stations.app import main

    run_service("stations", main, "127.0.0.1:9341")
