"""`python -m services.edge`: the process that holds the WebSockets of stations."""

from __future__ import annotations

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.edge.app import run

    run_service("edge", run, "127.0.0.1:9311")
