"""`python -m services.edge`: the process that holds the WebSockets of stations."""

from busbar.service import run_service
from services.edge.app import run

if __name__ == "__main__":
    run_service("edge", run, "127.0.0.1:9311")
