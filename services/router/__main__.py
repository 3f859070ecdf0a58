"""`python -m services.router`: presence of stations, and the life of commands."""

from __future__ import annotations

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.router.app import main

    run_service("router", main, "127.0.0.1:9321")
