"""Run by test_synthesize in a process of its own: kills syntheses, lets them share a folder, gives digests.

`python synthesis_under_fire.py FOLDER` prints one JSON object.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from small_generator import FakeCodec, make_generator, make_store, make_tokens, small_recipe

from ajbench.core import console
from ajbench.data.store import ClipStore
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.synthesize import synthesize

RECIPE = small_recipe(synth={"n": 14, "sampler_steps": 4})


def run(home, out, processes=1):
    synthesize(
        RECIPE,
        ClipStore.open(home / "real"),
        home / "generator",
        home / "tokens",
        out,
        fingerprint="fire",
        processes=processes,
        codec=FakeCodec(),
    )


def digests(out):
    """Content of everything that a finished store keeps, but for the times that it took."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and ".claims" not in path.parts)
    files = [path for path in files if path.name != "timing.csv"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def child(home, out, fsyncs=None):
    """Fork a synthesis; with `fsyncs`, it kills itself before that many writes are made durable."""
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
        run(home, out)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def end(pid):
    """Wait; returns whether it was killed, and fails on any other bad end."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "a child failed"
    return False


def main(home):
    torch.set_num_threads(1)
    console.configure(quiet=True)
    make_generator(home / "generator", make_store(home / "real"))
    make_tokens(home / "tokens")
    run(home, home / "whole")
    report = {"whole": digests(home / "whole"), "kills": 0, "io_kills": 0}
    # Children of a fork need not read the generator again.
    loaded = AudioJourneyPipeline.from_pretrained(home / "generator", home / "tokens", FakeCodec())
    AudioJourneyPipeline.from_pretrained = lambda *_: loaded

    began = time.monotonic()
    end(child(home, home / "timed"))
    took = time.monotonic() - began
    draw = random.Random(5)
    while not (home / "killed" / "store.json").exists():
        pid = child(home, home / "killed")
        # At most half of a run's time, so that one is not enough; after six kills it may end.
        if report["kills"] < 6:
            time.sleep(draw.uniform(0, 0.5 * took))
            os.kill(pid, signal.SIGKILL)
        report["kills"] += end(pid)
    report["killed"] = digests(home / "killed")

    for fsyncs in range(100):
        if not end(child(home, home / "io", fsyncs)):
            break
        report["io_kills"] += 1
    report["io"] = digests(home / "io")

    pids = [child(home, home / "shared") for _ in range(2)]
    assert not any([end(pid) for pid in pids])
    report["shared"] = digests(home / "shared")

    run(home, home / "two", processes=2)
    report["two"] = digests(home / "two")
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
