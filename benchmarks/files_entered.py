"""Count the files of ajbench that a command enters; docs/architecture.md cites the numbers.

A file counts if one of its functions or methods runs while the command runs. Code that an import runs does
not count: module and class bodies, decorators, and the functions that these call. Only this process and its
threads are watched, not the processes that the command starts. Earlier stages have to be finished.

    python benchmarks/files_entered.py -- train-cls --recipe mini+20G
"""

import inspect
import runpy
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import ajbench
from ajbench.core import console

PACKAGE = f"{Path(ajbench.__file__).parent}/"
IMPORT_SYSTEM = "<frozen importlib._bootstrap"


def in_import(frame: FrameType | None) -> bool:
    """Return whether an import runs this frame."""
    while frame is not None and not frame.f_code.co_filename.startswith(IMPORT_SYSTEM):
        frame = frame.f_back
    return frame is not None


def files_entered(arguments: list[str]) -> list[str]:
    """Run `ajbench ARGUMENTS` and return the files that it entered, relative to the package."""
    entered: set[str] = set()
    settled: set[CodeType] = set()  # counted already, or not to be counted

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in settled:
            return
        is_function = code.co_flags & inspect.CO_OPTIMIZED  # bodies of modules and classes are not
        if not is_function or not code.co_filename.startswith(PACKAGE):
            settled.add(code)
        elif not in_import(frame):
            settled.add(code)
            entered.add(code.co_filename.removeprefix(PACKAGE))

    sys.argv = ["ajbench", *arguments]
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        runpy.run_module("ajbench", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.setprofile(None)
    return sorted(entered)


if __name__ == "__main__":
    command = sys.argv[2:] if sys.argv[1] == "--" else sys.argv[1:]
    files = files_entered(command)
    console.emit(files, text="\n".join([f"{len(files)} files entered", *files]))
