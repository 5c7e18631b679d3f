"""Checks shared by all corpora: location, options, folds, splits, clip ids."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core import registry
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora.splits import clip_labels, hashed_fold, need_splits, split_by_fold, unique_ids
from ajbench.data.manifest import Problem, Row

WITHOUT_FOLDS = ["audioset", "audiocaps", "fsd50k", "vggsound"]
ON_DISK = [*WITHOUT_FOLDS, "esc50", "folder", "table"]


def read(corpus, root, **options):
    return registry.resolve("corpus", corpus)(Data(corpus=corpus, **options), root)


@pytest.mark.parametrize("corpus", ON_DISK)
def test_a_corpus_on_disk_needs_its_location(corpus, tmp_path):
    with pytest.raises(UsageError, match=rf"{corpus}.*--data"):
        read(corpus, None)
    with pytest.raises(MissingError, match="nowhere"):
        read(corpus, tmp_path / "nowhere")


@pytest.mark.parametrize("corpus", [*ON_DISK, "mini"])
def test_a_subset_or_eval_fold_that_a_corpus_lacks_is_refused(corpus, tmp_path):
    subset = "esc10" if corpus == "audioset" else "full"
    with pytest.raises(UsageError, match=rf"data\.subset={subset}"):
        read(corpus, tmp_path, subset=subset)
    if corpus in WITHOUT_FOLDS:
        with pytest.raises(UsageError, match=rf"data\.eval_fold=1.*{corpus}"):
            read(corpus, tmp_path, eval_fold=1)


def rows_in(folds):
    return [Row(str(i), f"{i}.wav", labels=("a",), fold=fold) for i, fold in enumerate(folds)]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=40), st.data())
def test_exactly_one_fold_is_evaluated(folds, data):
    present = sorted(set(folds))
    wanted = data.draw(st.sampled_from([None, *present]))
    if len(present) == 1:
        with pytest.raises(MissingError, match=f"fold {present[0]}"):
            split_by_fold(rows_in(folds), [], wanted)
        return
    chosen = wanted or present[-1]
    problems = [Problem("p", "t.csv", 2, "bad", fold=fold) for fold in (chosen, None)]
    rows, assigned = split_by_fold(rows_in(folds), problems, wanted)
    assert [row.split for row in rows] == ["eval" if fold == chosen else "train" for fold in folds]
    assert [replace(row, split="train") for row in rows] == rows_in(folds)  # nothing else changed
    assert [problem.split for problem in assigned] == ["eval", None]


def test_a_fold_without_clips_is_refused():
    with pytest.raises(UsageError, match=r"data\.eval_fold=4.* 1, 2, 5"):
        split_by_fold(rows_in([1, 2, 5]), [], 4)


def test_train_and_eval_need_clips():
    need_splits([Row("a", "a", split="train"), Row("b", "b", split="eval")], [], Path("data"))
    with pytest.raises(MissingError, match=r"data.*'eval'.* train, val"):
        need_splits([Row("a", "a", split="train"), Row("b", "b", split="val")], [], Path("data"))
    with pytest.raises(MissingError, match=r"data.*line 3: no file"):
        need_splits([], [Problem("a", "t.csv", 3, "no file")], Path("data"))


def test_hashed_folds_are_even_and_never_change():
    folds = [hashed_fold(f"clip-{i}") for i in range(5000)]
    assert all(900 < folds.count(fold) < 1100 for fold in range(1, 6))
    assert folds[:8] == [5, 5, 2, 2, 4, 1, 3, 5]


def test_the_first_of_a_repeated_id_is_kept():
    rows = [Row("a", "1.wav"), Row("b", "2.wav"), Row("a", "3.wav", split="eval")]
    earlier = Problem("c", "t.csv", 9, "bad")
    kept, problems = unique_ids(rows, [2, 3, 4], [earlier])
    assert kept == rows[:2]
    assert problems == [Problem("a", "3.wav", 4, problems[0].reason, "eval"), earlier]
    assert "'a'" in problems[0].reason and "1.wav" in problems[0].reason


def test_labels_of_a_clip_are_distinct_and_known():
    by_name = {"dog": "dog", "/m/1": "cat", "cat": "cat"}
    assert clip_labels([" dog", "", "/m/1", "cat"], by_name, "t") == ("dog", "cat")
    assert clip_labels(["owl", "dog", "owl"], None, "t") == ("owl", "dog")
    for written, word in (([" "], "empty"), (["dogg"], "'dogg' is not in t, did you mean 'dog'")):
        with pytest.raises(ValueError, match=word):
            clip_labels(written, by_name, "t")
