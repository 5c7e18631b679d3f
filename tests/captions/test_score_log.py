import numpy as np
import pytest

from ajbench.captions.score_log import ScoreLog
from ajbench.core.errors import IntegrityError

PAIRS = [("a dog", "Bark"), ("ein Hund „hier“", "Bark"), ("a car", "Bark")]
NUMBERS = np.array([[0.1, 0.30000000000000004, 0.5], [0.2, 0.4, np.nan]])


def test_numbers_come_back_after_a_kill_and_pairs_without_one_are_asked_again(tmp_path):
    path, about = tmp_path / "x" / "log.jsonl", {"model": "m", "seed": 0}
    for repeat, numbers in enumerate(NUMBERS):
        ScoreLog(path, about).add(repeat, PAIRS, numbers)
    with path.open("a") as file:
        file.write('["torn", "a d')
    log = ScoreLog(path, about)
    np.testing.assert_array_equal(log.of(PAIRS[::-1], 3), [*NUMBERS[:, ::-1], [np.nan] * 3])
    log.add(1, PAIRS[2:], np.array([0.7]))
    np.testing.assert_array_equal(ScoreLog(path, about).of(PAIRS, 2), [NUMBERS[0], [0.2, 0.4, 0.7]])


def test_a_kill_while_a_torn_line_is_dropped_loses_no_whole_one(tmp_path, monkeypatch):
    path = tmp_path / "log"
    ScoreLog(path, {}).add(0, PAIRS, NUMBERS[0])
    with path.open("a") as file:
        file.write('["torn')

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.truncate", killed)
        patched.setattr("pathlib.Path.write_bytes", lambda path, _: killed(path.open("wb").close()))
        ScoreLog(path, {})
    np.testing.assert_array_equal(ScoreLog(path, {}).of(PAIRS, 1), NUMBERS[:1])


def test_lines_with_all_repeats_are_read(tmp_path):
    log = ScoreLog(tmp_path / "log", {})
    log.path.write_text(f'["{log.key}", "a dog", "Bark", [0.1, 0.2]]\n')
    np.testing.assert_array_equal(ScoreLog(log.path, {}).of(PAIRS[:1], 2), [[0.1], [0.2]])


def test_another_model_knows_nothing_of_it(tmp_path):
    ScoreLog(tmp_path / "log", {"model": "m"}).add(0, PAIRS, NUMBERS[0])
    assert np.isnan(ScoreLog(tmp_path / "log", {"model": "n"}).of(PAIRS, 1)).all()


def test_a_damaged_file_is_named(tmp_path):
    for line in ("nothing", "3", "[1, 2]"):
        (tmp_path / "log").write_text(f"{line}\n")
        with pytest.raises(IntegrityError, match="log"):
            ScoreLog(tmp_path / "log", {})
