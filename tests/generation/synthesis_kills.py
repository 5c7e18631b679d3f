"""Run by test_synthesize in its own process: kills syntheses, shares folders between them, compares bytes.

`python synthesis_kills.py FOLDER [two]` prints a JSON object with the digests of all stores. With `two`, one
of them is made by two worker processes, which have to import everything again.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from fakes import FakeCodec, make_synthesis_inputs, store_digests, synthesize_small

from ajbench.generation.pipeline import AudioJourneyPipeline


def child(home, name, fsyncs=None):
    """Fork a synthesis; with `fsyncs`, it kills itself instead of making the next write durable."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if fsyncs is not None:
            plain, left = os.fsync, [fsyncs]

            def fsync(descriptor):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                plain(descriptor)

            os.fsync = fsync
        synthesize_small(home, name)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end(pid):
    """Wait for a child; return whether it was killed, and fail if it failed."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "a child failed"
    return False


def main(home, *more):
    make_synthesis_inputs(home)
    report = {"whole": synthesize_small(home, "whole"), "kills": 0, "io_kills": 0}
    # Forked children reuse the loaded generator.
    loaded = AudioJourneyPipeline.from_pretrained(home / "generator", home / "tokens", FakeCodec())
    AudioJourneyPipeline.from_pretrained = lambda *_, **__: loaded

    began = time.monotonic()
    end(child(home, "timed"))
    took = time.monotonic() - began
    draw = random.Random(5)
    while report["kills"] < 3:  # again if the timed run was slowed down by others
        shutil.rmtree(home / "killed", ignore_errors=True)
        report["kills"] = 0
        while not (home / "killed" / "store.json").exists():
            pid = child(home, "killed")
            # After at most half the time of a run: one run is not enough; after six kills it may end.
            if report["kills"] < 6:
                time.sleep(draw.uniform(0, 0.5 * took))
                os.kill(pid, signal.SIGKILL)
            report["kills"] += end(pid)
        took /= 2
    report["killed"] = store_digests(home / "killed")

    for fsyncs in range(100):
        if not end(child(home, "io", fsyncs)):
            break
        report["io_kills"] += 1
    report["io"] = store_digests(home / "io")

    pids = [child(home, "shared") for _ in range(2)]
    assert not any([end(pid) for pid in pids])
    report["shared"] = store_digests(home / "shared")

    if "two" in more:
        report["two"] = synthesize_small(home, "two", processes=2)
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
