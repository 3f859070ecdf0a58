"""Processes are tied to the life of the one that started them, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from busbar.local import tied
from busbar.local.process import Process

AUTOGROUP = Path("/proc/self/autogroup")
PARENT = """
import sys, time
from pathlib import Path
from busbar.local.process import Process
child = Process("child", [sys.executable, "-c", "import time; time.sleep(60)"], log_path=Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process has ended; one that nobody has waited for yet counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not tied.is_alive(pid) or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert tied.is_alive(pid)
    parent.send_signal(end)
    parent.wait(5)
    parent.stdout.close()
    assert gone(pid)


def test_where_the_kernel_does_not_help_a_watching_process_does(tmp_path: Path) -> None:
    """As on systems without PR_SET_PDEATHSIG."""
    child_file = tmp_path / "child"
    code = f"import os, time; open({str(child_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent_code = (
        "import os, subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-I', '-S', {tied.__file__!r}, '--watch', '--parent', str(os.getpid()),"
        " '--', sys.executable, '-c', sys.argv[1]]); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code, code])
    deadline = time.monotonic() + 5
    while not (child_file.exists() and child_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert gone(int(child_file.read_text()))


def test_a_command_whose_parent_has_gone_before_it_does_not_run(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-I", "-S", tied.__file__, "--parent", "1", "--", "touch", str(tmp_path / "ran")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "has ended" in answer.stderr
    assert not (tmp_path / "ran").exists()


def test_processes_are_not_started_from_other_threads(tmp_path: Path) -> None:
    errors: list[str] = []

    def start() -> None:
        try:
            Process("x", ["true"], log_path=tmp_path / "log").start()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert errors == ["processes are started from the main thread: their lives are tied to it"]


async def test_ctrl_c_in_the_terminal_does_not_reach_children(tmp_path: Path) -> None:
    process = Process("x", ["sleep", "60"], log_path=tmp_path / "log")
    process.start()
    assert process.pid is not None
    assert os.getpgid(process.pid) != os.getpgid(0)
    await process.kill()


async def test_a_child_may_step_back_for_others(tmp_path: Path) -> None:
    for nice in (0, 7):
        child = Process(
            "child",
            [sys.executable, "-c", "import os; print('nice', os.nice(0))"],
            log_path=tmp_path / f"{nice}.log",
            nice=nice,
        )
        child.start()
        assert await child.wait(10) == 0
        assert child.log_path.read_text() == f"nice {min(19, os.nice(0) + nice)}\n"


@pytest.mark.skipif(not os.access(AUTOGROUP, os.W_OK), reason="this system does not weigh sessions")
async def test_a_child_that_steps_back_does_so_with_its_session_too(tmp_path: Path) -> None:
    child = Process("child", ["cat", str(AUTOGROUP)], log_path=tmp_path / "log", nice=7)
    child.start()
    assert await child.wait(10) == 0
    assert child.log_path.read_text().split()[1:] == ["nice", "7"]


async def test_the_output_is_kept_over_restarts(tmp_path: Path) -> None:
    process = Process("x", ["sh", "-c", "echo out; echo err >&2"], log_path=tmp_path / "logs" / "x.log")
    for _ in range(2):
        process.start()
        assert await process.wait(5) == 0
    assert (tmp_path / "logs" / "x.log").read_text().split() == ["out", "err"] * 2
    assert process.log_tail(1) == "err"


async def test_a_large_log_makes_room(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"old\n" * 5_000_001)
    process = Process("x", ["echo", "new"], log_path=log)
    process.start()
    await process.wait(5)
    assert log.read_text() == "new\n"
    assert (tmp_path / "x.log.1").stat().st_size == 20_000_004


async def test_a_command_that_does_not_exist_says_so_in_the_log(tmp_path: Path) -> None:
    process = Process("x", ["no-such-program-of-busbar"], log_path=tmp_path / "log")
    process.start()
    assert await process.wait(5) == 1
    assert "no-such-program-of-busbar" in process.log_tail(20) or "FileNotFoundError" in process.log_tail(20)
