"""Results on stdout, messages on stderr, progress as a bar or as lines."""

import dataclasses
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ajbench.core import console
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import CodecSection


@pytest.fixture(autouse=True)
def fresh():
    console.configure()
    yield
    console.configure()


@dataclasses.dataclass
class Point:
    x: float
    where: Path


def test_messages_go_to_stderr_and_obey_q_and_v(capsys):
    for options in ({}, {"verbose": 1}, {"quiet": True}, {"quiet": True, "verbose": 1}, {"json_mode": True}):
        console.configure(**options)
        console.say("said")
        console.detail("detailed")
        out, err = capsys.readouterr()
        assert out == ""
        expected = "" if options.get("quiet") else "said\n" + ("detailed\n" if options.get("verbose") else "")
        assert err == expected


def test_fail_is_one_line_even_when_quiet(capsys):
    console.configure(quiet=True)
    assert console.fail(UsageError("recipe x:\n  unknown key")) == 2
    assert console.fail(IntegrityError("torn")) == 5
    assert console.fail(ValueError()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "ajbench: recipe x: unknown key\najbench: torn\najbench: ValueError\n"
    assert console.fail(UsageError("x" * 100_000)) == 2
    assert len(capsys.readouterr().err) < 2_100


def test_json_is_one_document_of_plain_values(capsys):
    console.configure(json_mode=True)
    cases = {  # key → value, what JSON shows
        "value": (np.float32(0.5), 0.5),
        "nan": (float("nan"), None),
        "array": (np.array([[1.0, np.inf], [2.0, 3.0]]), [[1.0, None], [2.0, 3.0]]),
        "count": (np.int64(3), 3),
        "flag": (np.bool_(True), True),
        "point": (Point(1.5, Path("a/b")), {"x": 1.5, "where": "a/b"}),
        "recipe": (CodecSection(name="tiny"), {"name": "tiny", "whitening": "pca"}),
        "tuple": ((1, None, "ß"), [1, None, "ß"]),
        "set": ({"b", "a"}, ["a", "b"]),
        7: ("key", "key"),
    }
    document = {key: value for key, (value, _) in cases.items()}
    console.emit(document, text="not this", table=(["nor"], [["this"]]))
    out, err = capsys.readouterr()
    shown = json.loads(out, parse_constant=pytest.fail)
    assert shown == {str(key): expected for key, (_, expected) in cases.items()}
    assert "ß" in out and err == ""


def test_what_json_cannot_hold_is_an_error():
    with pytest.raises(TypeError, match="object"):
        console.plain({"a": [object()]})


def test_a_table_is_aligned_with_numbers_to_the_right(capsys):
    rows = [["ast", 0.45921, 20], ["taltrans", None, 1234]]
    console.emit({}, text="Table", table=(["model", "mAP", "n"], rows))
    assert capsys.readouterr().out == (
        "Table\n"
        "model        mAP     n\n"
        "ast       0.4592    20\n"
        "taltrans       –  1234\n"
    )  # fmt: skip


def test_without_text_or_table_the_document_is_printed(capsys):
    console.emit({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}


@pytest.fixture
def clock(monkeypatch):
    """A clock for progress; it shows `now`."""
    made = SimpleNamespace(now=100.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: made.now)
    return made


def test_progress_in_a_log_is_a_line_every_ten_seconds(capsys, clock):
    with console.progress(100, "encode") as advance:
        for _ in range(50):
            clock.now += 0.5
            advance(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "encode: 40/100 clips, 4/s, 15 s left",
        "encode: 80/100 clips, 4/s, 5 s left",
        "encode: 100/100 clips in 25 s, 4/s",
    ]


def test_long_waits_are_shown_in_minutes_and_hours(capsys, clock):
    with console.progress(10_000, "train", "steps") as advance:
        clock.now += 10
        advance(10)
        clock.now += 100
        advance(990)
    assert capsys.readouterr().err.splitlines() == [
        "train: 10/10000 steps, 1/s, 2 h 46 min left",
        "train: 1000/10000 steps, 9.09/s, 16 min 30 s left",
        "train: 1000/10000 steps in 1 min 50 s, 9.09/s",
    ]


def test_interrupted_work_is_not_reported_as_finished(capsys):
    with pytest.raises(KeyboardInterrupt), console.progress(3, "encode") as advance:
        advance()
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [{"quiet": True}, {"json_mode": True}])
def test_no_progress_when_quiet_or_json(capsys, options):
    console.configure(**options)
    with console.progress(2, "encode") as advance:
        advance()
        advance(1)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_bars_inside_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress(2, "models [a]") as outer:
        for name in ("first", "second"):
            with console.progress(3, name, "steps") as inner:
                assert [task.description for task in console._settings.bars.tasks] == ["models [a]", name]
                inner(3)
            console.say(f"{name} done")
            outer()
    with console.progress(1, "later") as advance:
        advance()
    shown = terminal.getvalue()
    for text in ("models [a]", "2/2", "second", "0/3", "later", "first done"):
        assert text in shown
    assert console._settings.bars is None


@pytest.mark.parametrize(
    ("n", "noun", "text"), [(1, "clip", "1 clip"), (0, "clip", "0 clips"), (2, "class", "2 classes")]
)
def test_nouns_agree_with_their_number(n, noun, text):
    assert console.counted(n, noun) == text
