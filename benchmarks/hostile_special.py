"""Pipes, devices and links in place of a file."""

import os
import random
from pathlib import Path


def special(path: Path, rng: random.Random) -> Path:
    """Put a pipe, a device or a link to one at a path; return the path."""
    kind = rng.choice(("fifo", "link to fifo", "zero", "random", "link to itself", "folder", "tty"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to fifo":
        os.mkfifo(path.with_name("pipe"))
        path.symlink_to("pipe")
    elif kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"zero": "/dev/zero", "random": "/dev/urandom", "tty": "/dev/tty"}[kind])
    return path
