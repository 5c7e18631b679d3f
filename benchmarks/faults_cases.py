"""The faults of benchmarks/faults.py: each disturbs a command once, and says how that ended.

A case ends as `same`, `refused`, or one of FAULTS: see `judge` and `settle`.
"""

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from faults_folders import lock, may_mount, mounted, remount, unlock
from faults_ground import LIMIT_S, Command, Ground, contents
from hostile_runs import TICK_S, Child, Outcome, run

from ajbench.core import console

FAULTS = ("lost", "different", "traceback", "hang")
ENDS = ("same", "refused", *FAULTS)
SHARDS = (".arrow", ".parquet")
CHECKPOINTS = (".safetensors", ".pt", ".npz", ".npy")
NOTES, LOW_BITS = (".json",), 3  # a low bit makes another letter or digit of one, and leaves JSON
DRAWS = 5  # of an instant, if a command has ended before it


@dataclass(frozen=True)
class Try:
    """A command, what it leaves undisturbed, and what the disturbance is drawn with.

    Attributes:
        name: of the command.
        command: its arguments, and what it needs.
        ground: where it runs.
        rng: of this try.
        took: seconds of an undisturbed run, without imports.
        expected: `contents` after it.
        written: bytes that it writes.
        output: file of what the command prints, outside of the disturbed folder.
    """

    name: str
    command: Command
    ground: Ground
    rng: random.Random
    took: float
    expected: dict[str, str]
    written: int
    output: Path

    @property
    def place(self) -> Path:
        """Where it runs."""
        return self.ground.place

    def reset(self) -> None:
        """Put the ground into the state in which the command is started."""
        self.ground.reset(self.command.after)

    def instant(self) -> float:
        """Draw a moment of the command's run, in seconds since its start."""
        return self.rng.uniform(0, self.took)

    def run(
        self,
        *more: str,
        first: Callable[[], object] | None = None,
        during: Callable[[Child, float], object] | None = None,
    ) -> Outcome:
        """Run the command; `more`: arguments to add."""
        arguments = (*self.command.arguments, *more)
        return run(arguments, self.place, LIMIT_S, first, during, str(self.output))

    def killed(self) -> bool:
        """Run the command and kill it at an instant; return whether it was still running."""
        instant = self.instant()

        def kill(child: Child, seconds: float) -> None:
            if seconds >= instant:
                child.kill()

        return self.run(during=kill).code == -signal.SIGKILL

    def interrupted(self) -> None:
        """Leave the ground as a kill leaves it, in two of three tries; otherwise as it was."""
        self.reset()
        if self.rng.random() < 2 / 3:
            self.killed()

    def files(self, *suffixes: str) -> list[Path]:
        """Return the files below the ground, with one of the suffixes if any are given."""
        found = (path for path in sorted(self.place.rglob("*")) if path.is_file())
        return [p for p in found if p.suffix != ".lock" and (not suffixes or p.suffix in suffixes)]

    def say(self, text: str) -> None:
        """Print what will be needed to understand a fault."""
        console.say(f"{self.name}: {' '.join(text.split())[-600:]}")


def judge(one: Try, done: Outcome, names: tuple[str, ...]) -> str:
    """Return how a disturbed command ended: `done`, `refused` or a fault.

    `refused` is an exit code of 2 to 5 and one line that has one of `names` before its advice. Whatever else
    is not an end without error counts as `traceback`, as would a crash.
    """
    if done.stopped:
        one.say(f"hang: {done.text}")
        return "hang"
    calm = replace(done, text=done.text.replace("out of memory", ""))  # which is an answer here
    if not calm.fault and not done.code:
        return "done"
    line = done.text.strip().splitlines()[-1] if done.text.strip() else ""
    if not calm.fault and 2 <= done.code <= 5 and any(name in line.split(";")[0] for name in names):
        return "refused"
    one.say(f"exit code {done.code}, expected one line with {names[0]}: {done.text}")
    return "traceback"


def compare(one: Try) -> str:
    """Return `same`, `lost` if something is missing, or `different`."""
    found = contents(one.place, one.command.outputs)
    if found == one.expected:
        return "same"
    missing = sorted(one.expected.keys() - found.keys())
    more = sorted(found.keys() - one.expected.keys())
    other = sorted(name for name in found.keys() & one.expected if found[name] != one.expected[name])
    one.say(f"missing {missing[:3]}, more {more[:3]}, other {other[:3]}")
    return "lost" if missing else "different"


def again(one: Try) -> str:
    """Run the command once more, undisturbed; return `same` or a fault."""
    done = one.run()
    if done.stopped:
        return "hang"
    if not done.code:
        return compare(one)
    one.say(f"again: exit code {done.code}: {done.text}")
    return "traceback" if done.fault else "lost"


def settle(one: Try, done: Outcome, names: tuple[str, ...], mend: Callable[[], object] = lambda: None) -> str:
    """Judge a disturbed command, undo the disturbance, run it again where it did not finish, and compare.

    Args:
        one: the try.
        done: how the command ended.
        names: one of which a refusal must have.
        mend: undoes the disturbance.
    """
    end = judge(one, done, names)
    mend()
    if end == "done":
        return compare(one)
    after = again(one)
    return end if after == "same" else (end if end in FAULTS else after)


def kill(one: Try) -> str:
    """SIGKILL of the process group at an instant; then the same command."""
    for _ in range(DRAWS):
        one.reset()
        if one.killed():
            break
    return again(one)


def full_disk(one: Try) -> str:
    """Less space than the command writes: of a tmpfs, or, without the right to mount, in a single file."""
    room = one.rng.randrange(max(1, one.written))
    names = (str(one.command.outputs[0]), "work", "results", one.place.name)
    if not may_mount():
        one.reset()
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # noqa: E731
        return settle(one, one.run(first=limit), names)
    with mounted(one.place):
        one.reset()
        used = shutil.disk_usage(one.place).used
        remount(one.place, f"size={used + room}")
        return settle(one, one.run(), names, lambda: remount(one.place, "size=2g"))


def read_only(one: Try) -> str:
    """A folder that cannot be written to, from the start or an instant on; empty where root may not mount."""
    instant, late = one.instant(), one.rng.random() < 0.5
    if not may_mount() and os.geteuid() == 0:  # whom modes do not stop
        return ""

    def lock_late(child: Child, seconds: float) -> None:
        nonlocal late
        if late and seconds >= instant:
            late = not lock(one.place)  # a mount has to wait while a file is being written

    with mounted(one.place) if may_mount() else nullcontext():
        one.reset()
        if not late:
            lock(one.place)
        done = one.run(during=lock_late)
        return settle(one, done, ("work", "results", "captions"), lambda: unlock(one.place))


def vanished(one: Try) -> str:
    """An input is gone from an instant on."""
    one.reset()
    victim, instant = one.rng.choice(one.files()), one.instant()
    aside = one.output.with_name("aside")

    def take(child: Child, seconds: float) -> None:
        # Without a clip from the start, it would be the work of another corpus.
        listed = one.command.after or any((one.place / one.command.outputs[0]).rglob("*.lock"))
        if seconds >= instant and listed and not aside.exists():
            shutil.move(victim, aside)

    done = one.run(during=take)
    names = (victim.name, victim.parent.name, victim.parent.parent.name, "not finished")
    return settle(one, done, names, lambda: aside.exists() and shutil.move(aside, victim))


def flipped(one: Try, suffixes: tuple[str, ...], bits: int = 8) -> str:
    """A flipped bit, of the lowest `bits`, in an input or in what an interrupted run left.

    Empty without such a file.
    """
    for _ in range(DRAWS):
        one.interrupted()
        if found := [path for path in one.files(*suffixes) if path.stat().st_size]:
            break
    else:
        return ""
    victim = one.rng.choice(found)
    whole, about = victim.read_bytes(), victim.stat()
    data = bytearray(whole)
    data[one.rng.randrange(len(data))] ^= 1 << one.rng.randrange(bits)
    victim.write_bytes(data)
    os.utime(victim, ns=(about.st_atime_ns, about.st_mtime_ns))

    def mend() -> None:
        if victim.exists() and victim.read_bytes() == bytes(data):
            victim.write_bytes(whole)

    end = settle(one, one.run(), (victim.name, victim.parent.name), mend)
    if end in FAULTS:
        one.say(f"a bit in {victim}")
    return end


def flipped_shard(one: Try) -> str:
    """A flipped bit in a shard of clips or captions."""
    return flipped(one, SHARDS)


def flipped_checkpoint(one: Try) -> str:
    """A flipped bit in weights, optimiser state or arrays."""
    return flipped(one, CHECKPOINTS)


def flipped_note(one: Try) -> str:
    """A flipped low bit in what a stage notes for later ones, as JSON."""
    return flipped(one, NOTES, LOW_BITS)


def clock(one: Try) -> str:
    """Files dated into the past or future, and a clock that jumps as far while the command runs."""
    one.interrupted()
    days = one.rng.choice((-3650, -1, 1, 3650)) * one.rng.random()
    for path in (*one.place.rglob("*"), one.place):
        moment = path.stat().st_mtime + 86_400 * days * one.rng.choice((0, 1))
        os.utime(path, (moment, moment))
    instant, real, began = one.instant(), time.time, time.monotonic()

    def jump() -> None:
        time.time = lambda: real() + 86_400 * days * (time.monotonic() - began > instant)

    return settle(one, one.run(first=jump), ("nothing",))


def twice(one: Try) -> str:
    """Two runs of the command, the second from an instant of the first on."""
    one.reset()
    instant, began = one.instant(), time.monotonic()
    other = one.output.with_name("other.txt")
    jobs = [Child(one.command.arguments, one.place, LIMIT_S, output=str(one.output))]
    ends: dict[int, Outcome] = {}
    while len(ends) < 2:
        if len(jobs) < 2 and time.monotonic() - began >= instant:
            jobs.append(Child(one.command.arguments, one.place, LIMIT_S, output=str(other)))
        for job in jobs:
            if job.pid not in ends and (done := job.poll()):
                ends[job.pid] = done
        time.sleep(TICK_S)
    judged = [judge(one, done, (".lock", "held by")) for done in ends.values()]
    if fault := next((end for end in judged if end in FAULTS), ""):
        return fault
    after = compare(one) if "done" in judged else again(one)
    return "refused" if after == "same" and "refused" in judged else after


def little_memory(one: Try) -> str:
    """An address space that may not grow much more from an instant on (RLIMIT_AS)."""
    one.reset()
    more, instant = one.rng.randrange(1 << 22, 1 << 28), one.instant()

    def limit(child: Child, seconds: float) -> None:
        nonlocal instant
        if seconds >= instant:
            instant = float("inf")
            pages = int(Path(f"/proc/{child.pid}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + more
            resource.prlimit(child.pid, resource.RLIMIT_AS, (most, most))

    return settle(one, one.run(during=limit), ("memory",))


def dead_worker(one: Try) -> str:
    """SIGKILL of a worker process, as the kernel does when memory is short; empty without workers."""
    more = {"synth": ("--processes", "2"), "run": ()}.get(one.name)
    if more is None:
        return ""
    one.reset()
    due: list[float] = []
    instant = one.rng.uniform(0, 6 + one.took / 2)  # a worker takes some seconds to import

    def hit(child: Child, seconds: float) -> None:
        if not (found := workers_of(child.pid)):
            return
        due.append(seconds + instant)
        if seconds >= due[0] and due[0] >= 0:
            os.kill(one.rng.choice(found), signal.SIGKILL)
            due[0] = float("inf")

    return settle(one, one.run(*more, during=hit), ("process",))


def workers_of(parent: int) -> list[int]:
    """Return the processes that multiprocessing has started for `parent` to work (Linux)."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return []
    found = []
    for child in listed:
        try:
            line = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if b"spawn_main" in line:
            found.append(int(child))
    return found
