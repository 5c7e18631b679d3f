import fcntl
import io
import math
import resource
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.rows import ROW_COLUMNS, Context, append_rows, folds_in, folds_name, make_row, read_rows

CONTEXT = Context("run-1", "esc10", "abc123", "deadbeef", "esc10 fold 1", seconds=12.5)


def measurement(seed=0, value=0.5, **changes):
    place = ("A11", "taltrans-small/-/mx+sp", "esc10", "map")
    return make_row(CONTEXT, *place, value, (0.4, 0.6), n=80, seed=seed) | changes


def test_columns_are_those_of_the_contract():
    contract = (
        "time, run, recipe, fingerprint, git, table, row, column, dataset, split, metric, features, value, "
        "ci_low, ci_high, n, seed, seconds, device, precision, pool, real, codec, settings"
    )
    assert ", ".join(ROW_COLUMNS) == contract
    assert tuple(measurement()) == ROW_COLUMNS


def test_what_goes_in_comes_out(tmp_path):
    path = tmp_path / "results" / "rows.csv"
    rows = [measurement(0, 0.78123456), measurement(1, math.nan, row='a "quoted", name', ci_low=math.nan)]
    assert append_rows(path, rows) == 2
    frame = read_rows(path)
    assert list(frame.columns) == list(ROW_COLUMNS)
    assert frame["value"].iloc[0] == pytest.approx(0.781235) and math.isnan(frame["value"].iloc[1])
    assert frame["row"].tolist() == ["taltrans-small/-/mx+sp", 'a "quoted", name']
    assert frame["seed"].tolist() == ["0", "1"] and frame["n"].tolist() == [80.0, 80.0]


@pytest.mark.parametrize(
    "later", [ROW_COLUMNS[-k:] for k in range(1, 6)], ids=["settings", "codec", "real", "pool", "precision"]
)
def test_rows_older_than_a_column_are_read_with_an_empty_one(tmp_path, later):
    path, new = (
        tmp_path / "rows.csv",
        {"precision": "bf16", "pool": 2_041_789, "real": 22_160, "codec": "tiny@0", "settings": "f0"},
    )
    append_rows(path, [measurement(0), measurement(1)])
    older = [line.rsplit(",", len(later))[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(older) + "\n")
    assert read_rows(path)[later[0]].tolist() == ["", ""]
    assert append_rows(path, [measurement(1)]) == 0
    assert path.read_text().splitlines() == older
    assert append_rows(path, [measurement(2, **new)]) == 1
    assert path.read_text().splitlines()[1:3] == [line + "," * len(later) for line in older[1:]]
    assert read_rows(path)[later[0]].tolist() == ["", "", str(new[later[0]])]
    half = path.read_bytes()[:-3]
    path.write_bytes(half)
    with pytest.raises(IntegrityError, match="line 4"):
        append_rows(path, [measurement(3)])
    assert path.read_bytes() == half


@pytest.mark.parametrize(
    ("folds", "name"),
    [((5,), "fold 5"), ((1, 2, 3, 4, 5), "folds 1-5"), ((1, 3), "folds 1,3"), ((9, 10), "folds 9-10")],
)
def test_a_dataset_names_its_folds_and_is_counted_by_them(folds, name):
    assert folds_name(folds) == name
    assert folds_in(f"my folds 7 corpus {name}") == len(folds)
    assert folds_in("esc10") == 1


def test_the_same_measurement_is_not_written_twice(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0)])
    before = path.read_bytes()
    # Neither a later time nor a repetition in one call makes it another measurement.
    assert append_rows(path, [measurement(0, time="2099-01-01T00:00:00+00:00")]) == 0
    assert path.read_bytes() == before
    keys = ("run", "fingerprint", "column", "split", "features")
    others = [measurement(0, **{key: "other"}) for key in keys]
    assert append_rows(path, [*others, *others]) == len(others)
    assert path.read_bytes().startswith(before)


def test_a_measurement_with_another_result_is_a_new_line(tmp_path):
    # Results are committed: the tables must show the figures of the run that was repeated last.
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0, 0.5), measurement(1, 0.7)])
    assert append_rows(path, [measurement(0, 0.25), measurement(1, 0.7)]) == 1
    assert append_rows(path, [measurement(0, 0.25)]) == 0
    assert append_rows(path, [measurement(0, 0.5)]) == 1
    frame = read_rows(path)
    assert frame[frame["seed"] == "0"]["value"].tolist() == [0.5, 0.25, 0.5]


def test_a_repeated_evaluation_stands_last_where_it_shall(tmp_path):
    path = tmp_path / "rows.csv"
    first, other, clips = (
        [measurement(k, run=run, recipe=recipe) for k in (0, 1)]
        for run, recipe in (("eval-cls-a", "esc10"), ("eval-cls-b", "esc10"), ("eval-gen-c", "esc10"))
    )
    elsewhere = [measurement(0, run="eval-cls-d", recipe="esc50")]
    for rows, added in (
        (first, 2),
        (first, 0),
        (clips, 2),
        (elsewhere, 1),
        (first, 0),
        (other, 2),
        (first, 2),
    ):
        before = path.read_bytes() if path.exists() else b""
        assert append_rows(path, rows, last=True) == added
        assert path.read_bytes().startswith(before)
    assert read_rows(path)["run"].tolist()[-4:] == ["eval-cls-b"] * 2 + ["eval-cls-a"] * 2
    assert append_rows(path, other) == 0, "only where it is asked for"
    changed = [first[0] | {"value": 0.7}, first[1]]
    assert append_rows(path, changed, last=True) == 1
    assert append_rows(path, [*other, *other], last=True) == 2


def test_many_writers_leave_complete_lines(tmp_path):
    path = tmp_path / "rows.csv"
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda k: append_rows(path, [measurement(k), measurement(0)]), range(40)))
    assert sum(added) == 40
    assert sorted(read_rows(path)["seed"].astype(int)) == list(range(40))


def test_a_writer_waits_for_the_lock(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0)])
    with path.open("rb") as holder, ThreadPoolExecutor(1) as pool:
        fcntl.flock(holder, fcntl.LOCK_EX)
        waiting = pool.submit(append_rows, path, [measurement(1)])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        fcntl.flock(holder, fcntl.LOCK_UN)
        assert waiting.result(timeout=600) == 1


def older(path):
    """Drop the last column of a file and return it."""
    lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")
    return path.read_text()


def test_a_kill_while_a_column_is_added_loses_no_line(tmp_path, monkeypatch):
    class Killed(io.FileIO):
        def write(self, data):
            raise KeyboardInterrupt

    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0), measurement(1)])
    before = older(path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(path), "open", lambda path, mode, buffering=0: Killed(path, mode))
        append_rows(path, [measurement(2)])
    assert path.read_text() == before
    assert append_rows(path, [measurement(2)]) == 1 and len(read_rows(path)) == 3


def test_a_writer_appends_to_the_file_that_replaced_the_one_it_waited_for(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0)])
    older(path)
    with path.open("rb") as holder, ThreadPoolExecutor(1) as pool:
        fcntl.flock(holder, fcntl.LOCK_EX)
        waiting = pool.submit(append_rows, path, [measurement(1)])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        append_rows(tmp_path / "new.csv", [measurement(0), measurement(2)])
        (tmp_path / "new.csv").replace(path)
        fcntl.flock(holder, fcntl.LOCK_UN)
        assert waiting.result(timeout=600) == 1
    assert read_rows(path)["seed"].tolist() == ["0", "2", "1"]


def test_an_incomplete_line_and_a_foreign_file_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0), measurement(1)])
    whole = path.read_text()
    path.write_text(whole[:-20])
    for call in (lambda: read_rows(path), lambda: append_rows(path, [measurement(2)])):
        with pytest.raises(IntegrityError, match="line 3"):
            call()
    path.write_bytes(whole.encode().replace(b",0.5,", b",\xe9,"))
    with pytest.raises(IntegrityError, match=r"rows\.csv: not CSV in UTF-8"):
        read_rows(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(IntegrityError, match="header"):
        read_rows(path)
    path.write_text(whole.replace(",0.5,", ",half,"))
    with pytest.raises(IntegrityError, match="column value"):
        read_rows(path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "rows.csv"
    append_rows(path, [measurement(0)])
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))
        with pytest.raises(OSError, match=r"rows\.csv|too large"):
            append_rows(path, [measurement(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before


def test_other_keys_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(UsageError, match="colour"):
        append_rows(tmp_path / "rows.csv", [measurement(colour="red")])
    with pytest.raises(MissingError, match=r"none\.csv"):
        read_rows(tmp_path / "none.csv")
