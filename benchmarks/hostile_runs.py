"""Run a command of ajbench in a forked child, with limits of time and memory."""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 20.0  # of processor time, or of waiting without using any
LIMIT_MB = 2_000
TICK_S = 0.02


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; negative: the number of the signal that ended it.
        stopped: `time` or `memory` if a limit was reached, else empty.
        seconds: of processor time.
        peak_mb: largest resident memory.
        text: stdout and stderr together.
    """

    code: int
    stopped: str
    seconds: float
    peak_mb: float
    text: str

    @property
    def fault(self) -> str:
        """What is wrong with such an end: traceback, crash, hang, memory, more than a line, or nothing."""
        if self.stopped:
            return {"time": "hang", "memory": "memory"}[self.stopped]
        if self.code < 0:
            return "crash"
        if self.peak_mb > LIMIT_MB or "out of memory" in self.text:
            return "memory"
        if self.code == 1 or "Traceback (most recent call last)" in self.text:
            return "traceback"
        lines = self.text.strip().splitlines()
        told = sum(line.startswith(("ajbench: ", "Error: ")) for line in lines)
        return (
            "not one line"
            if self.code and (told != 1 or not lines[-1].startswith(("ajbench: ", "Error")))
            else ""
        )


def run(arguments: Sequence[str], folder: Path, limit_s: float = LIMIT_S) -> Outcome:
    """Run `ajbench` with these arguments in a folder, in a child of this process.

    Args:
        arguments: of the command line.
        folder: in which the child works and its output is kept (`output.txt`).
        limit_s: of processor time, or of waiting without using any.
    """
    out = folder / "output.txt"
    child = os.fork()
    if child == 0:
        _become(arguments, folder, out)
    stopped, peak, used, used_at = "", 0.0, 0.0, time.monotonic()
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        now_used, peak_now = _state(child)
        peak = max(peak, peak_now)
        if now_used > used:
            used, used_at = now_used, time.monotonic()
        if peak > LIMIT_MB:
            stopped = "memory"
        elif used > limit_s or time.monotonic() - used_at > limit_s:
            stopped = "time"
        if stopped:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            break
        time.sleep(TICK_S)
    return Outcome(
        os.waitstatus_to_exitcode(status),
        stopped,
        usage.ru_utime + usage.ru_stime,
        max(peak, usage.ru_maxrss / 1024),
        out.read_text(errors="replace") if out.exists() else "",
    )


def _become(arguments: Sequence[str], folder: Path, out: Path) -> None:
    """Run the command in this process, which ends."""
    code = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        null = os.open(os.devnull, os.O_RDONLY)
        output = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number, handle in ((0, null), (1, output), (2, output)):
            os.dup2(handle, number)
        sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
        os.chdir(folder)
        from ajbench.cli.app import app

        app(list(arguments), prog_name="ajbench")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _state(pid: int) -> tuple[float, float]:
    """Return the processor seconds and the resident MB of a process and those that it started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0, 0.0
    ticks = sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20
