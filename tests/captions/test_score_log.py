import numpy as np
import pytest

from ajbench.captions.score_log import ScoreLog
from ajbench.core.errors import IntegrityError

PAIRS = [("a dog", "Bark"), ("ein Hund „hier“", "Bark"), ("a car", "Bark")]
NUMBERS = np.array([[0.1, 0.30000000000000004, 0.5], [0.2, 0.4, np.nan]])


def test_numbers_come_back_after_a_kill_and_pairs_without_one_are_asked_again(tmp_path):
    path, about = tmp_path / "x" / "log.jsonl", {"model": "m", "seed": 0}
    ScoreLog(path, about).add(PAIRS, NUMBERS)
    with path.open("a") as file:
        file.write('["torn", "a d')
    log = ScoreLog(path, about)
    assert [pair in log for pair in PAIRS] == [True, True, False]
    np.testing.assert_array_equal(log.of(PAIRS[1::-1]), NUMBERS[:, 1::-1])
    log.add(PAIRS[2:], np.array([[0.6], [0.7]]))
    assert PAIRS[2] in ScoreLog(path, about) and PAIRS[0] in ScoreLog(path, about)


def test_another_model_knows_nothing_of_it(tmp_path):
    ScoreLog(tmp_path / "log", {"model": "m"}).add(PAIRS, NUMBERS)
    assert PAIRS[0] not in ScoreLog(tmp_path / "log", {"model": "n"})


def test_a_damaged_file_is_named(tmp_path):
    for line in ("nothing", "3", "[1, 2]"):
        (tmp_path / "log").write_text(f"{line}\n")
        with pytest.raises(IntegrityError, match="log"):
            ScoreLog(tmp_path / "log", {})
