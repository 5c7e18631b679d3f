"""Run by test_ray_workers in its own process: a synthesis on Ray, one of whose workers is killed.

`python synthesis_on_ray.py FOLDER` prints a JSON object with the digests.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from fakes import FakeCodec, make_generator, make_store, make_tokens, small_recipe, store_digests

from ajbench.core import console
from ajbench.data.store import ClipStore
from ajbench.generation.synthesize import synthesize

RECIPE = small_recipe(synth={"n": 14, "sampler_steps": 4})


class Deadly(FakeCodec):
    """Kills its process, once, when the third micro-batch of all processes is decoded."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def decode(self, codes):
        (self.folder / f"{os.getpid()}-{len(list(self.folder.iterdir()))}").touch()
        if len(list(self.folder.iterdir())) == 3 and not (self.folder.parent / "killed").exists():
            (self.folder.parent / "killed").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(codes)


def run(home, name, codec, **how):
    synthesize(
        RECIPE,
        ClipStore.open(home / "real"),
        home / "generator",
        home / "tokens",
        home / name,
        fingerprint="ray",
        codec=codec,
        **how,
    )
    return store_digests(home / name)


def main(home):
    torch.set_num_threads(1)
    console.configure(quiet=True)
    make_generator(home / "generator", make_store(home / "real"))
    make_tokens(home / "tokens")
    (home / "decoded").mkdir()
    report = {"whole": run(home, "whole", FakeCodec())}
    report["ray"] = run(home, "ray", Deadly(home / "decoded"), engine="ray", processes=2)
    report["killed"] = int((home / "killed").read_text())
    report["driver"] = os.getpid()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
