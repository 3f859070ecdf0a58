"""`python -m services.api`: the HTTP API, and the keys for it."""

from __future__ import annotations

import sys

from busbar import compiled

if __name__ == "__main__":
    compiled.use()

    from busbar.service import run_service
    from services.api.app import main
    from services.api.keys import arguments, run

    options = arguments().parse_args()
    if options.command is not None:
        sys.exit(run(options))
    run_service("api", main, "127.0.0.1:9411")
