import json
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from ajbench.core.errors import MissingError, UsageError
from ajbench.evaluation.listening_sheets import FORMAT, count, read


def sheet(path, hits, task="pair", listener="", **changes):
    """A saved sheet with an answer per hit, right or wrong."""
    trials = [
        {"sounds": [{"set": "G"}, {"set": "real"}], "options": ["A", "B"], "right": "A", "answer": "BA"[hit]}
        for hit in hits
    ]
    about = {"format": FORMAT, "recipe": "mini", "task": task, "set": "", "seed": 1, "listener": listener}
    path.write_text(json.dumps({**about, "started": "2026-01-01", "trials": trials, **changes}))
    return path


def test_one_listener_has_wilsons_interval_over_trials(tmp_path):
    [line] = count([read(sheet(tmp_path / "a.json", [1] * 15 + [0] * 5))])
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    assert (line["ci_low"], line["ci_high"]) == pytest.approx(tuple(expected))
    assert line["accuracy"] == 0.75 and line["listeners"] == 1 and line["verdict"] == "better than chance"


@pytest.mark.parametrize(
    ("right", "verdict"),
    [(10, "no difference from chance is seen"), (3, "worse than chance"), (20, "better than chance")],
)
def test_verdicts(tmp_path, right, verdict):
    [line] = count([read(sheet(tmp_path / "a.json", [1] * right + [0] * (20 - right)))])
    assert line["verdict"] == verdict


def test_several_listeners_are_the_sample(tmp_path):
    """Two who always hear it and two who never do are no 40 independent trials."""
    skill = {"a": [1] * 10, "b": [1] * 10, "c": [1] * 10, "d": [0, 1] * 5}
    sheets = [read(sheet(tmp_path / f"{name}.json", hits, listener=name)) for name, hits in skill.items()]
    [line] = count(sheets)
    alone = binomtest(35, 40).proportion_ci(method="wilson")
    assert line["listeners"] == 4 and line["n"] == 40 and line["right"] == 35
    assert line["ci_low"] < alone.low - 0.1
    unnamed = [replace(one, listener="", seed=number) for number, one in enumerate(sheets)]
    assert count(unnamed)[0]["listeners"] == 4
    same = [replace(one, listener="a", seed=number) for number, one in enumerate(sheets)]
    assert count(same)[0]["listeners"] == 1


def test_tasks_are_counted_apart(tmp_path):
    of_class = [
        {"sounds": [{"set": name}], "options": ["x", "y", "z", "w"], "right": "x", "answer": "x"}
        for name in ("real", "G", "G")
    ]
    first = read(sheet(tmp_path / "a.json", [1, 0]))
    second = read(sheet(tmp_path / "b.json", [], task="class", trials=of_class))
    lines = count([first, second])
    assert [(line["task"], line["clips"], line["n"], line["chance"]) for line in lines] == [
        ("pair", "all", 2, 0.5), ("class", "all", 3, 0.25), ("class", "real", 1, 0.25),
        ("class", "generated", 2, 0.25),
    ]  # fmt: skip


def test_a_sheet_counts_once(tmp_path):
    one = read(sheet(tmp_path / "a.json", [1, 0]))
    with pytest.raises(UsageError, match="given twice"):
        count([one, one])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"task": "guess"}, "task 'guess'; allowed: pair, single, class"),
        ({"trials": []}, "no answers"),
        ({"trials": [{}]}, "no 'sounds'"),
        ({"trials": 3}, "not a sheet"),
        ({"trials": [{"sounds": [{"set": "G"}], "options": ["A"], "right": "A", "answer": "A"}]}, "two"),
        ({"trials": [{"sounds": [{"set": "G"}], "options": ["A", "B"], "right": "A", "answer": "C"}]}, "'C'"),
        ({"trials": [{"sounds": [], "options": ["A", "B"], "right": "A", "answer": "A"}]}, "not a sheet"),
    ],
)
def test_what_is_no_sheet_is_refused(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        read(sheet(tmp_path / "a.json", [1], **changes))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"{", b"[]", b"a,b\n1,2\n", b"{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.csv: not a sheet"):
        read(tmp_path / "a.csv")


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingError, match=r"none\.json"):
        read(tmp_path / "none.json")
