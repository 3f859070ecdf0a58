"""`python -m services.billing`: one worker of the billing service."""

from __future__ import annotations

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.billing.app import main

    run_service("billing", main, "127.0.0.1:9351")
