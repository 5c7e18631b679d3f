"""Run by test_ray_workers in its own process: a synthesis on Ray, one of whose workers is killed.

`python synthesis_on_ray.py FOLDER` prints a JSON object with the digests.
"""

import json
import os
import signal
import sys
from pathlib import Path

from fakes import FakeCodec, make_synthesis_inputs, synthesize_small


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


def main(home):
    make_synthesis_inputs(home)
    (home / "decoded").mkdir()
    report = {"driver": os.getpid(), "whole": synthesize_small(home, "whole")}
    codec = Deadly(home / "decoded")
    report["ray"] = synthesize_small(home, "ray", codec, engine="ray", processes=2)
    report["killed"] = int((home / "killed").read_text())
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
