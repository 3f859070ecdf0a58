"""Run a command whose life is tied to that of the process that started it.

    python -I -S tied.py --parent PID --signal NUMBER [--nice N] [--uid UID --gid GID] -- COMMAND ARGUMENT...

This script becomes the command (same process id). When the parent ends for whatever reason, SIGKILL included, the
command gets the signal: from the kernel on Linux, from a small watching process elsewhere. Standard library only,
because it runs without site-packages.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_TRIES = 20


def step_back(nice: int) -> None:
    """Leave the processor to others where they want it.

    Linux may share it out among sessions first (`kernel.sched_autogroup_enabled`), and niceness then counts only among
    the processes of one session. The child is a session of its own: that one has to step back as well.
    """
    os.nice(nice)
    for _ in range(_TRIES):
        try:
            with open("/proc/self/autogroup", "w") as session:
                session.write(str(min(nice, 19)))
            return
        except BlockingIOError:
            time.sleep(0.1)  # of all sessions of ordinary users, one may do so every tenth of a second
        except OSError:
            return  # no Linux, or one that knows no such thing


def main(arguments: Sequence[str]) -> None:
    """Tie this process to its parent, drop privileges if asked, and become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, default=int(signal.SIGKILL))
    parser.add_argument("--nice", type=int, default=0, help="how much to step back for others")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--watch", action="store_true", help="watch from a process, even on Linux")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if options.nice:
        step_back(options.nice)
    if options.uid is not None:
        os.setgroups([])
        os.setgid(options.gid)
        os.setuid(options.uid)
    # After the change of user, which clears the setting.
    if options.watch or not sys.platform.startswith("linux"):
        watch_from_a_process(options.parent, os.getpid(), options.signal)
    else:
        ask_the_kernel(options.signal)
    if os.getppid() != options.parent:
        sys.exit("the process that asked for this one has ended")
    os.execvp(options.command[0], options.command)  # noqa: S606 - that is what this script is for


def ask_the_kernel(number: int) -> None:
    """Have Linux send `number` to this process when its parent ends. Survives exec, but not a change of user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def watch_from_a_process(parent: int, child: int, number: int) -> None:
    """Leave behind a process that signals `child` once `parent` is gone, and ends with either of them."""
    if os.fork():
        os.wait()
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    while is_alive(child):
        if not is_alive(parent):
            os.kill(child, number)
            break
        time.sleep(0.2)
    os._exit(0)


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
