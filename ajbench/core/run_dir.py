"""Folders of stages: what ran, with which versions, for how long, and whether it has finished.

A stage writes into its own folder, which also has `recipe.yaml` (the merged recipe), `run.json` (provenance)
and, when everything else is on disk, `DONE`.
"""

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ajbench.core import cost
from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import AjbenchError, IntegrityError
from ajbench.core.files import atomic_write, sync_folder
from ajbench.core.sealed_json import read_sealed, write_sealed

COUNT_S = 15.0  # of a process that is killed, up to so many seconds are not counted

PACKAGES = (
    "ajbench", "accelerate", "diffusers", "encodec", "numpy", "pyarrow", "scikit-learn", "soundfile", "soxr",
    "timm", "torch", "torchaudio", "transformers",
)  # fmt: skip


class RunDir:
    """The folder of a stage, identified by the stage's fingerprint."""

    def __init__(self, path: Path, stage: str, fingerprint: str) -> None:
        self.path = Path(path)
        self.stage = stage
        self.fingerprint = fingerprint
        self._before: cost.Reading | None = None
        self._earlier: dict[str, Any] = {}  # what interrupted sessions used

    @property
    def lock_file(self) -> Path:
        """The file beside it that is locked while the stage runs."""
        return self.path.with_name(f".{self.path.name}.lock")

    def done(self) -> bool:
        """Return whether the stage with this fingerprint has finished."""
        return (self.path / "DONE").exists() and self.info().get("fingerprint") == self.fingerprint

    def info(self) -> dict[str, Any]:
        """Return `run.json`, or an empty dict if nothing has started.

        Raises:
            IntegrityError: the file is damaged.
        """
        try:
            return read_sealed(self.path / "run.json", "remove the folder or use --force", IDS_BYTES)
        except FileNotFoundError:
            return {}

    def start(
        self, recipe_yaml: str, seed: int | None, device: str, precision: str = "fp32", force: bool = False
    ) -> None:
        """Create the folder and record what is about to run; outputs with the same fingerprint are kept.

        Args:
            recipe_yaml: the merged recipe, stored as `recipe.yaml`.
            seed: None if nothing is random.
            device: that it runs on.
            precision: that it computes in: fp32 or bf16.
            force: delete the outputs of an earlier run and start again.

        Raises:
            IntegrityError: the folder is of another fingerprint (without `force`), or has files that no run
                made (with `force`, which would delete them).
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if force:
            self.clear()
        earlier = self.info()
        if earlier and earlier.get("fingerprint") != self.fingerprint:
            raise IntegrityError(
                f"{self.path}: has {earlier.get('stage')} {earlier.get('fingerprint')}, "
                f"not {self.stage} {self.fingerprint}; choose another --work folder or use --force"
            )
        finished = (self.path / "DONE").exists()
        self._earlier = {} if finished else {name: earlier[name] for name in cost.USED if name in earlier}
        self._before = cost.start()
        (self.path / "DONE").unlink(missing_ok=True)
        atomic_write(self.path / "recipe.yaml", recipe_yaml)
        record = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "seed": seed,
            "device": device,
            "precision": precision,
            "started": _now(),
            "sessions": int(earlier.get("sessions", 0)) + 1,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            **environment(),
            **self._earlier,
        }
        self._write(record)

    @contextmanager
    def counting(self, processes: int = 1) -> Iterator[None]:
        """Add what was used so far to `run.json` every COUNT_S seconds, so that it counts if this is killed.

        Args:
            processes: of the launch that this one belongs to.
        """
        ended = threading.Event()

        def count() -> None:
            # Work that cannot write either, or whose folder is deleted, says so itself.
            with suppress(OSError, AjbenchError):
                info = self.info()
                # Of several processes that share the work, one may have finished it.
                if info.get("fingerprint") == self.fingerprint and not (self.path / "DONE").exists():
                    self._write(_without_use(info) | self._used(str(info.get("device")), processes))

        def keep_counting() -> None:
            while not ended.wait(COUNT_S):
                count()

        thread = threading.Thread(target=keep_counting, name="cost", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            count()
            raise
        finally:
            ended.set()
            thread.join()

    def finish(self, extra: dict[str, Any] | None = None) -> None:
        """Add what was used since `start` and by interrupted sessions, and `extra`, then write `DONE`."""
        # Of processes that were killed while they, or safetensors, wrote.
        for stray in [*self.path.rglob(".*.tmp"), *self.path.rglob(".tmp??????")]:
            if stray.is_dir() and not stray.is_symlink():  # a checkpoint
                shutil.rmtree(stray, ignore_errors=True)
            else:
                stray.unlink(missing_ok=True)
        info, extra = self.info(), extra or {}
        record = {
            **_without_use(info),
            **environment(),
            "finished": _now(),
            **self._used(str(info.get("device")), int(extra.get("processes", 1))),
            "disk_mb": cost.disk_mb(self.path),
            **extra,
        }
        self._write(record)
        atomic_write(self.path / "DONE", f"{self.fingerprint}\n")

    def _used(self, device: str, processes: int) -> dict[str, Any]:
        return cost.added(self._earlier, cost.used(self._before or cost.read(), device, processes))

    def _write(self, record: Mapping[str, Any]) -> None:
        write_sealed(self.path / "run.json", record, indent=2)

    def clear(self) -> None:
        """Delete the outputs of earlier runs, if there are any.

        Raises:
            IntegrityError: the folder has files that no run made.
        """
        if not self.path.exists():
            return
        entries = [entry for entry in self.path.iterdir() if entry.suffix != ".lock"]
        if entries and not (self.path / "run.json").exists():
            raise IntegrityError(
                f"{self.path}: --force would delete files that no run made; delete them yourself"
            )
        # DONE goes first, as what is deleted in part is not finished.
        (self.path / "DONE").unlink(missing_ok=True)
        sync_folder(self.path)
        # run.json goes last, so that an interrupted deletion can be resumed.
        for entry in sorted(entries, key=lambda entry: entry.name == "run.json"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)


def _without_use(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in cost.USED}


def world() -> tuple[int, int]:
    """Return the number of processes of a `torchrun` or `accelerate` launch, and the rank of this one."""
    return int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return the rank of this process among those launched on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def environment() -> dict[str, Any]:
    """Return what a result depends on besides the recipe: git commit, versions, platform, threads."""
    # A stage that computes has imported torch; importing it here would take a second.
    torch = sys.modules.get("torch")
    return {
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


@functools.cache
def git_commit() -> str | None:
    """Return the commit that ajbench runs from, with `-dirty` if its code was changed; None if not in git."""
    root = Path(__file__).resolve().parents[2]
    top, _, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").partition("\n")
    # An installed copy may be inside another project's checkout, in a virtual environment.
    if not commit or Path(top).resolve() != root:
        return None
    changed = _git(root, "status", "--porcelain", "--", "ajbench", "recipes")
    return commit[:12] + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
