"""`python -m busbar.local.clean FOLDER`: remove what `busbar up` has written there. Standard library only."""

from __future__ import annotations

import fcntl
import shutil
import sys
from pathlib import Path

from busbar.local import postgres_files
from busbar.local.errors import StackError


def clean(folder: Path) -> bool:
    """Remove the folder, and the database that lies elsewhere if root started it. Returns whether there was anything.

    Raises:
        StackError: A stack runs there, or the folder is not one of `busbar up`.
    """
    if not folder.exists():
        return False
    lock_path = folder / "lock"
    if not lock_path.exists():
        raise StackError(f"{folder} was not made by `busbar up`: it is left alone")
    with open(lock_path, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(f"busbar runs in {folder}: stop it first (`kill {lock.read().strip()}`)") from None
        postgres_files.remove(folder / "postgres")
        shutil.rmtree(folder)
    return True


def main(arguments: list[str]) -> str | int:
    """Clean the folders named; returns what `sys.exit` takes."""
    try:
        for argument in arguments:
            if clean(Path(argument)):
                print(f"removed {argument}")
    except StackError as error:
        return str(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
