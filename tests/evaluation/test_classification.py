import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Mix
from ajbench.core.rows import Context, is_control
from ajbench.evaluation import classification
from ajbench.evaluation.classification import Scores, TableCell, per_class

LABELS = ("clock", "dog", "rain", "siren")
CONTEXT = Context("run-1", "esc10", "f1", "c0ffee", "esc10 fold 1")


def predictions(skill, seed, n=60, multi=False):
    """Scores that find the label the better the larger `skill` is; the clips do not depend on the seed."""
    truth = np.random.default_rng(99).integers(0, len(LABELS), n)
    targets = np.eye(len(LABELS), dtype=np.uint8)[truth]
    if multi:
        targets[::3, 0] = 1
    noise = np.random.default_rng(seed).standard_normal(targets.shape)
    scores = (noise + skill * targets).astype(np.float32)
    return Scores(scores, targets, tuple(f"clip-{i}" for i in range(n)), LABELS)


def cell(column="esc10", seed=0, model="taltrans-small"):
    return TableCell(model, "-", "mx+sp", column, seed)


def by_metric(rows):
    return {(row["column"], row["metric"]): row for row in rows}


def sklearn_map(s):
    return average_precision_score(s.targets, s.scores, average="macro")


@pytest.mark.parametrize(
    ("mix", "column"),
    [
        (Mix(), "esc10"),
        (Mix(dose=160), "+160G"),
        (Mix(dose=40_000), "+40kG"),
        (Mix(real=False, dose=320), "esc10G"),
        (Mix(mode="alpha", alpha=0.25), "α=0.25"),
    ],
)
def test_columns_are_named_as_in_table_a11(mix, column):
    assert classification.column_name("esc10", mix) == column


def test_scores_on_disk_come_back(tmp_path):
    made = predictions(1.0, 0)
    path = classification.save_scores(
        tmp_path / "scores.npz", made.scores, made.targets, made.clip_ids, made.labels
    )
    back = classification.load_scores(path)
    np.testing.assert_array_equal(back.scores, made.scores)
    np.testing.assert_array_equal(back.targets, made.targets)
    assert (back.clip_ids, back.labels) == (made.clip_ids, made.labels)
    with np.load(path, allow_pickle=False) as file:
        assert set(file) == {"scores", "targets", "clip_ids", "labels"}


def test_damaged_scores_are_refused(tmp_path):
    with pytest.raises(MissingError, match="train-cls"):
        classification.load_scores(tmp_path / "scores.npz")
    made = predictions(1.0, 0)
    with pytest.raises(UsageError, match="59 clip ids"):
        classification.save_scores(
            tmp_path / "x.npz", made.scores, made.targets, made.clip_ids[:-1], made.labels
        )
    path = classification.save_scores(
        tmp_path / "scores.npz", made.scores, made.targets, made.clip_ids, made.labels
    )
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IntegrityError, match="train this cell again"):
        classification.load_scores(path)
    np.savez(path, scores=np.array([{"a": 1}], dtype=object))
    with pytest.raises(IntegrityError, match="not readable as predictions"):
        classification.load_scores(path)


def test_rows_of_a_cell_agree_with_sklearn_and_hold_their_value():
    made = predictions(1.5, 3)
    rows = classification.cell_rows(cell(seed=3), made, CONTEXT, resamples=200)
    found = {row["metric"]: row for row in rows}
    assert found["map"]["value"] == pytest.approx(sklearn_map(made))
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(made.targets, made.scores, average="macro"))
    expected = (made.scores.argmax(1) == made.targets.argmax(1)).mean()
    assert found["accuracy"]["value"] == pytest.approx(expected)
    assert found.pop("classes")["value"] == made.targets.any(axis=0).sum()
    for row in found.values():
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert (row["n"], row["seed"], row["row"], row["table"]) == (60, 3, "taltrans-small/-/mx+sp", "A11")
    # The standard error of a proportion, by its formula.
    half_width = 1.96 * np.sqrt(expected * (1 - expected) / 60)
    width = found["accuracy"]["ci_high"] - found["accuracy"]["ci_low"]
    assert width == pytest.approx(2 * half_width, rel=0.2)


def test_columns_of_controls_say_what_they_control_for():
    real = Mix()
    assert classification.column_name("esc10", real, through_codec=True) == "esc10 (decoded)"
    longer = real.model_copy(update={"match_steps": 80_000})
    assert classification.column_name("as20k", longer) == "as20k (steps of +80kG)"
    assert classification.column_name("esc10", Mix(dose=160), through_codec=True) == "+160G (decoded)"
    assert [is_control(c) for c in ("esc10 (decoded)", "+160G", "esc10G", "α=0.5")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_control_is_compared_but_not_one_of_the_mixes_tried():
    cells = {cell("esc10", 0): predictions(1.0, 0), cell("+160G", 0): predictions(1.4, 0)}
    alone = classification.compare_to_real(cells, "esc10", CONTEXT, resamples=50)
    cells[cell("esc10 (decoded)", 0)] = predictions(1.2, 4)
    both = classification.compare_to_real(cells, "esc10", CONTEXT, resamples=50)

    def of(rows, metric):
        return {row["column"]: (row["ci_low"], row["ci_high"]) for row in rows if row["metric"] == metric}

    assert of(both, "map_delta_family") == of(alone, "map_delta_family")
    assert set(of(both, "map_delta")) == {"+160G", "esc10 (decoded)"}


def test_gains_by_class(tmp_path):
    paths = {}
    for column, strength in (("esc10", 1.0), ("+160G", 1.6)):
        for seed in (0, 1):
            made = predictions(strength, seed)
            path = classification.save_scores(
                tmp_path / f"{column}{seed}.npz", made.scores, made.targets, made.clip_ids, made.labels
            )
            paths[cell(column, seed)] = path
    lines = per_class(paths, "esc10")
    assert [line["class"] for line in lines] == list(made.labels)
    for line in lines:
        assert line["+160G_gain"] == pytest.approx(line["+160G"] - line["esc10"], abs=0.011)
    first = [
        average_precision_score(s.targets[:, 0], s.scores[:, 0])
        for s in map(classification.load_scores, (paths[cell("esc10", k)] for k in (0, 1)))
    ]
    assert lines[0]["esc10"] == pytest.approx(100 * np.mean(first), abs=0.006)


def test_multi_label_clips_have_no_accuracy():
    rows = classification.cell_rows(cell(), predictions(1.5, 3, multi=True), CONTEXT, resamples=50)
    assert [row["metric"] for row in rows] == ["map", "auc", "dprime", "classes"]


def test_difference_to_real_is_paired_and_of_the_mean_over_seeds():
    cells = {cell("esc10", k): predictions(1.0, k) for k in range(3)}
    cells |= {cell("+160G", k): predictions(1.4, k) for k in range(3)}
    cells |= {cell("esc10G", k): predictions(0.2, k) for k in range(3)}
    rows = classification.compare_to_real(cells, "esc10", CONTEXT, resamples=300)
    found = by_metric(rows)
    mean = {
        column: np.mean([sklearn_map(s) for c, s in cells.items() if c.column == column])
        for column in ("esc10", "+160G", "esc10G")
    }
    for column, value in mean.items():
        assert found[column, "map_mean"]["value"] == pytest.approx(value)
    for column in ("+160G", "esc10G"):
        delta = found[column, "map_delta"]
        assert delta["value"] == pytest.approx(mean[column] - mean["esc10"])
        assert delta["seed"] == "0;1;2" and delta["n"] == 60
    # Both columns share their noise, so the paired interval is far narrower than either column's own.
    paired, own = found["+160G", "map_delta"], found["+160G", "map_mean"]
    assert paired["ci_high"] - paired["ci_low"] < 0.6 * (own["ci_high"] - own["ci_low"])
    assert paired["ci_low"] > 0
    assert ("esc10", "map_delta") not in found
    assert ("esc10G", "map_delta_family") not in found, "synthetic only is no candidate for helping"


def test_interval_of_the_family_widens_with_the_doses_tried():
    one = {cell("esc10", 0): predictions(1.0, 0), cell("+160G", 0): predictions(1.4, 0)}
    two = one | {cell("+320G", 0): predictions(1.3, 5)}
    narrow, wide = (
        by_metric(classification.compare_to_real(cells, "esc10", CONTEXT, resamples=400))
        for cells in (one, two)
    )
    same, family = narrow["+160G", "map_delta"], narrow["+160G", "map_delta_family"]
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((family["ci_low"], family["ci_high"]))
    assert wide["+160G", "map_delta_family"]["ci_low"] < wide["+160G", "map_delta"]["ci_low"]


def test_same_predictions_differ_by_exactly_nothing():
    cells = {cell("esc10", k): predictions(1.0, k) for k in range(2)}
    cells |= {cell("+160G", k): predictions(1.0, k) for k in range(2)}
    delta = by_metric(classification.compare_to_real(cells, "esc10", CONTEXT, resamples=50))[
        "+160G", "map_delta"
    ]
    assert (delta["value"], delta["ci_low"], delta["ci_high"]) == (0.0, 0.0, 0.0)


def test_only_shared_seeds_are_compared():
    cells = {cell("esc10", k): predictions(1.0, k) for k in (0, 1)}
    cells |= {cell("+160G", k): predictions(1.4, k) for k in (1, 2)}
    delta = by_metric(classification.compare_to_real(cells, "esc10", CONTEXT, resamples=50))[
        "+160G", "map_delta"
    ]
    assert delta["seed"] == "1"
    assert delta["value"] == pytest.approx(
        sklearn_map(predictions(1.4, 1)) - sklearn_map(predictions(1.0, 1))
    )


def test_what_cannot_be_compared_is_refused():
    real = predictions(1.0, 0)
    with pytest.raises(UsageError, match="no cell of column 'esc10'"):
        classification.compare_to_real({cell("+160G"): real}, "esc10", CONTEXT)
    with pytest.raises(UsageError, match="share no seed"):
        classification.compare_to_real(
            {cell("esc10", 0): real, cell("+160G", 1): real}, "esc10", CONTEXT, resamples=9
        )
    other = Scores(real.scores, real.targets, tuple(reversed(real.clip_ids)), LABELS)
    with pytest.raises(IntegrityError, match="other clips"):
        classification.compare_to_real({cell("esc10", 0): real, cell("+160G", 0): other}, "esc10", CONTEXT)
    assert classification.compare_to_real({}, "esc10", CONTEXT) == []
