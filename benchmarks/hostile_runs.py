"""Run a command of ajbench in a forked child, with limits of time and memory."""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

LIMIT_S = 20.0  # of processor time, or of waiting without using any
LIMIT_MB = 2_000
TICK_S = 0.02
OUTPUT = "output.txt"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code; negative: the number of the signal that ended it.
        stopped: `time` or `memory` if a limit was reached, else empty.
        seconds: of processor time.
        peak_mb: largest resident memory, with that of the processes that it started.
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


class Child:
    """A forked child of this process that runs `ajbench` and is looked after with `poll`.

    Args:
        arguments: of the command line.
        folder: in which the child works.
        limit_s: of processor time, or of waiting without using any.
        first: called in the child before the command.
        output: file that keeps what it prints, in `folder` unless it is an absolute path.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        limit_s: float = LIMIT_S,
        first: Callable[[], object] | None = None,
        output: str = OUTPUT,
    ) -> None:
        self._out, self._limit_s = folder / output, limit_s
        self._peak, self._used, self._stopped = 0.0, 0.0, ""
        self._idle, self._seen = 0.0, time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _become(arguments, folder, self._out, first)
        os.setpgid(self.pid, self.pid)  # as the child does: whoever is first

    def poll(self) -> Outcome | None:
        """Return how it ended, or None while it runs; one that reached a limit is killed."""
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if not pid:
            now_used, peak_now = _state(self.pid)
            self._peak = max(self._peak, peak_now)
            # Not from the clock alone: both processes may have been stopped for a while.
            waited, self._seen = min(1.0, time.monotonic() - self._seen), time.monotonic()
            self._idle = 0.0 if now_used > self._used else self._idle + waited
            self._used = max(self._used, now_used)
            if self._peak > LIMIT_MB:
                self._stopped = "memory"
            elif self._used > self._limit_s or self._idle > self._limit_s:
                self._stopped = "time"
            if not self._stopped:
                return None
            self.kill()
            _, status, usage = os.wait4(self.pid, 0)
        return Outcome(
            os.waitstatus_to_exitcode(status),
            self._stopped,
            usage.ru_utime + usage.ru_stime,
            max(self._peak, usage.ru_maxrss / 1024),
            self._out.read_text(errors="replace") if self._out.exists() else "",
        )

    def kill(self) -> None:
        """End it and its process group at once."""
        os.killpg(self.pid, signal.SIGKILL)


def run(
    arguments: Sequence[str],
    folder: Path,
    limit_s: float = LIMIT_S,
    first: Callable[[], object] | None = None,
    during: Callable[[Child, float], object] | None = None,
    output: str = OUTPUT,
) -> Outcome:
    """Run `ajbench` with these arguments in a folder, in a child of this process, to its end.

    Args:
        arguments: of the command line.
        folder: in which the child works.
        limit_s: of processor time, or of waiting without using any.
        first: called in the child before the command.
        during: called again and again with the child and the seconds since its start.
        output: file that keeps what it prints, in `folder` unless it is an absolute path.
    """
    began = time.monotonic()
    child = Child(arguments, folder, limit_s, first, output)
    while (done := child.poll()) is None:
        if during:
            during(child, time.monotonic() - began)
        time.sleep(TICK_S)
    return done


def _become(
    arguments: Sequence[str], folder: Path, out: Path, first: Callable[[], object] | None
) -> NoReturn:
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

        if first:
            first()
        app(list(arguments), prog_name="ajbench")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _state(group: int) -> tuple[float, float]:
    """Return the processor seconds and the resident MB of a process group: a command and its workers."""
    own, ticks, pages = b"", 0, 0
    for number in sorted((int(path.name) for path in Path("/proc").glob("[0-9]*")), key=group.__ne__):
        place = Path(f"/proc/{number}")
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) != group:
                continue
            line, resident = (place / "cmdline").read_bytes(), int((place / "statm").read_text().split()[1])
        except (OSError, IndexError):  # it has ended
            continue
        own = own or line
        # A program about to be started still has the command line and the memory of its parent.
        pages += resident if number == group or line != own else 0
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20
