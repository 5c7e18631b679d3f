"""The only module that prints: results to stdout (text, a table or JSON), messages and progress to stderr."""

import contextlib
import dataclasses
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ajbench.core.errors import AjbenchError

LONGEST = 2_000  # characters of an error
PLAIN_INTERVAL_S = 10.0  # between progress lines if stderr is not a terminal


@dataclasses.dataclass
class _Settings:
    json_mode: bool = False
    quiet: bool = False
    verbose: int = 0
    mute: bool = False
    said: set[str] = dataclasses.field(default_factory=set)  # by `say_once`
    tallies: dict[str, set[str]] = dataclasses.field(default_factory=dict)  # by `tally`
    kept: list[str] | None = None  # by `keeping`
    bars: Any = None  # the rich display in use, of which a terminal can show only one


_settings = _Settings()


def configure(json_mode: bool = False, quiet: bool = False, verbose: int = 0, mute: bool = False) -> None:
    """Set what this process prints: `--json`, `-q`, `-v`; with `mute` only errors."""
    _settings.json_mode, _settings.quiet, _settings.verbose = json_mode, quiet, verbose
    _settings.mute = mute
    _settings.said.clear()
    _settings.tallies.clear()
    for stream in (sys.stdout, sys.stderr):  # text that the terminal's encoding lacks is escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a message on stderr, unless `-q`."""
    if _settings.kept is not None:
        _settings.kept.append(text)
    elif not _settings.quiet:
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def keeping() -> Iterator[list[str]]:
    """Keep the messages of `say` in a list, for the process that prints them."""
    _settings.kept = []
    try:
        yield _settings.kept
    finally:
        _settings.kept = None


def say_once(text: str) -> None:
    """Print a message on stderr unless this command has printed it already."""
    if text not in _settings.said:
        _settings.said.add(text)
        say(text)


def tally(what: str, example: str) -> None:
    """Count a remark on a file, once for each file; `say_tallies` prints the counts."""
    _settings.tallies.setdefault(what, set()).add(example)


def take_tallies() -> dict[str, list[str]]:
    """Return the files of each remark that was counted, and forget them: for the process that prints them."""
    found = {what: sorted(files) for what, files in _settings.tallies.items()}
    _settings.tallies.clear()
    return found


def say_tallies() -> None:
    """Print the remarks that were counted since the command began, and forget them."""
    for what, files in sorted(_settings.tallies.items()):
        say(f"{counted(len(files), 'file')}: {what} (such as {min(files)})")
    _settings.tallies.clear()


def detail(text: str) -> None:
    """Print a message on stderr if `-v`."""
    if _settings.verbose:
        say(text)


def fail(error: BaseException) -> int:
    """Print `ajbench: <message>` as one line on stderr, with any settings, and return the exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    if len(message) > LONGEST:  # quotes what someone else wrote
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    print(f"ajbench: {message}", file=sys.stderr, flush=True)
    return error.exit_code if isinstance(error, AjbenchError) else 1


def emit(
    document: Any, *, text: str | None = None, table: tuple[list[str], list[list[Any]]] | None = None
) -> None:
    """Print a command's result on stdout.

    Args:
        document: printed with `--json`, or if neither `text` nor `table` is given; made plain by `plain`.
        text: printed otherwise.
        table: (header, rows), printed otherwise in aligned columns, below `text` if both are given.
    """
    if _settings.mute:
        return
    if _settings.json_mode or (text is None and table is None):
        print(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False), flush=True)
        return
    parts = [text] if text is not None else []
    if table is not None:
        parts.append(_aligned(*table))
    print("\n".join(parts), flush=True)


@contextlib.contextmanager
def progress(total: int, what: str, unit: str = "clips") -> Iterator[Callable[..., None]]:
    """Show the progress of `what`; the context gives `advance(n=1)`.

    If stderr is a terminal, a bar with rate and time left; otherwise a line about every 10 s and one at the
    end; nothing with `--json` or `-q`.
    """
    if _settings.json_mode or _settings.quiet:
        yield lambda n=1: None
    elif sys.stderr.isatty():
        with _bar(total, what, unit) as advance:
            yield advance
    else:
        lines = _Lines(total, what, unit)
        yield lines.advance
        lines.close()


def plain(value: Any) -> Any:
    """Return `value` as dict, list, str, int, float, bool and None, for JSON.

    Paths become strings, NumPy scalars, arrays and tensors numbers and lists, dataclasses and pydantic models
    dicts, NaN and infinities None.

    Raises:
        TypeError: it contains something else.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if hasattr(value, "tolist"):  # NumPy and torch, without importing them
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be printed as JSON")


def counted(n: int, noun: str) -> str:
    """Return a number with its noun: `1 clip`, `2 clips`, `3 classes`."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith(('s', 'x')) else 's'}"


class _Lines:
    """Progress in a log: a line from time to time."""

    def __init__(self, total: int, what: str, unit: str) -> None:
        self.total, self.what, self.unit, self.done = total, what, unit, 0
        self.began = self.last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last >= PLAIN_INTERVAL_S and self.done < self.total:
            self.last = now
            rate = self.done / (now - self.began)
            left = f", {_span((self.total - self.done) / rate)} left" if rate else ""
            say(f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s{left}")

    def close(self) -> None:
        seconds = time.monotonic() - self.began
        rate = f", {self.done / seconds:.3g}/s" if seconds else ""
        say(f"{self.what}: {self.done}/{self.total} {self.unit} in {_span(seconds)}{rate}")


@contextlib.contextmanager
def _bar(total: int, what: str, unit: str) -> Iterator[Callable[..., None]]:
    from rich import progress as widgets
    from rich.console import Console
    from rich.text import Text

    class Rate(widgets.ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.3g} {task.fields['unit']}/s" if speed else "")

    with contextlib.ExitStack() as stack:
        if _settings.bars is None:
            text = widgets.TextColumn("{task.description}", markup=False)
            done = widgets.BarColumn(), widgets.MofNCompleteColumn(), Rate(), widgets.TimeRemainingColumn()
            _settings.bars = stack.enter_context(widgets.Progress(text, *done, console=Console(stderr=True)))
            stack.callback(setattr, _settings, "bars", None)
            task = _settings.bars.add_task(what, total=total, unit=unit)
        else:  # inside another bar: one more row, removed at the end
            task = _settings.bars.add_task(what, total=total, unit=unit)
            stack.callback(_settings.bars.remove_task, task)
        bars = _settings.bars
        yield lambda n=1: bars.advance(task, n)


def _aligned(header: list[str], rows: list[list[Any]]) -> str:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    numeric = [
        all(isinstance(row[i], int | float | None) for row in rows) and bool(rows) for i in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [header, *cells]
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
