"""What can go wrong between a person and a running stack."""

from __future__ import annotations


class StackError(Exception):
    """Something the person at the terminal can mend. The message is one line and names the remedy."""
