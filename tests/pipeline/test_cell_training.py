"""The choice of keys for an arm: every candidate once, on clips that are not trained on, and resumed."""

import json

import numpy as np
import pytest
from fakes import classifier_weights, flip_in, hum_recipe, hum_record, hum_store, results_of, stopped_at

from ajbench.classifiers import train
from ajbench.core.clip_sections import Tail
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Mix
from ajbench.core.sealed_json import write_sealed
from ajbench.core.section import overlay
from ajbench.data import val_part
from ajbench.pipeline import cell_training
from ajbench.pipeline.cell_training import Candidate, Inputs, read_tuning, settings_of, tune_arm

CHANGES = [{"train_steps": steps, "lr": lr} for steps in (2, 4) for lr in (1e-3, 1e-2)]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """36 real clips, and a synthetic one of each train clip."""
    home = tmp_path_factory.mktemp("stores")
    real = hum_store(home / "real", [hum_record(i) for i in range(36)])
    made = [
        hum_record(100 + i, clip_id=f"syn-{i}", split="train", parent_id=f"clip-{i}")
        for i in range(36)
        if i % 3 < 2
    ]
    return real, hum_store(home / "synthetic", made)


def recipe_of(mix=None, **classifier):
    made = hum_recipe(mix, **classifier).model_dump()
    return type(hum_recipe()).model_validate(overlay(made, {"evaluate": {"tune": {}}}))


def candidates(recipe, changes=CHANGES):
    settings = recipe.classifier
    found = [type(settings).model_validate(overlay(settings.model_dump(), change)) for change in changes]
    return [Candidate(change, one, one.steps(24)) for change, one in zip(changes, found, strict=True)]


def tune(stores, out, mix=None, changes=CHANGES, **classifier):
    recipe, (real, synthetic) = recipe_of(mix, **classifier), stores
    cache = out.parent / "cache" if recipe.classifier.features else None
    inputs = Inputs(real.path, 1, synthetic=synthetic.path, cache=cache)
    tune_arm(recipe, inputs, candidates(recipe, changes), recipe.mix, out=out, fingerprint="abc")
    return read_tuning(out)


def test_every_candidate_is_trained_once_on_the_same_clips(stores, tmp_path):
    real, synthetic = stores
    with results_of(train, "select") as selected:
        found = tune(stores, tmp_path / "out", Mix(dose=10))
    val = {real.clip_ids[i] for i in val_part.divide(Mix(), real).val}
    assert len(selected) == len(CHANGES) and found["val_clips"] == len(val) == 4
    for one in selected:
        assert val.isdisjoint(one.ids) and len(one.ids) == 24 - len(val)
        (store, used), parents = one.clips.parts[1], synthetic.column("parent_id")
        assert store.path == synthetic.path and val.isdisjoint(parents[i] for i in used)
        assert len(used) == 10
    assert [(line["keys"], line["steps"]) for line in found["candidates"]] == [
        (change, change["train_steps"]) for change in CHANGES
    ]
    scores = [line["val_map"] for line in found["candidates"]]
    assert all(0 < score <= 1 for score in scores)
    assert scores[found["chosen"]] == max(scores)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tune.json"]


def test_a_dose_that_needs_clips_made_from_val_clips_becomes_lower(stores, tmp_path):
    with results_of(train, "select") as selected:
        tune(stores, tmp_path / "out", Mix(dose=24), CHANGES[:2])
    assert [(len(one.ids), len(one.clips)) for one in selected] == [(20, 40)] * 2


def test_a_dose_that_fills_the_tail_becomes_lower_by_what_is_left_of_the_tail(stores, tmp_path):
    synthetic, tail = stores[1], Tail(classes=["Hiss"], shots=3, fill=True)
    hiss = [i for i, labels in enumerate(synthetic.column("labels")) if labels == ["Hiss"]]
    with results_of(train, "select") as selected:
        tune(stores, tmp_path / "out", Mix(dose=len(hiss), tail=tail), CHANGES[:1])
    (_, used) = selected[0].clips.parts[1]
    assert 0 < len(used) < len(hiss) and {*used.tolist()} <= {*hiss}


def test_a_source_without_other_clips_is_refused(stores, tmp_path):
    real, _ = stores
    val = val_part.divide(Mix(), real).val
    records = [
        hum_record(k, clip_id=f"syn-{k}", parent_id=real.clip_ids[k], split="train") for k in val.tolist()
    ]
    with pytest.raises(UsageError, match=r"evaluate\.tune"):
        tune((real, hum_store(tmp_path / "made", records)), tmp_path / "out", Mix(dose=4))


def test_all_arms_are_scored_on_the_val_part_of_the_runs_real_clips(stores, tmp_path):
    real, synthetic = stores
    few = Mix(real="shots=2")
    part = val_part.divide(few, real)
    recipe = recipe_of(few.model_copy(update={"real": "all"}))
    inputs = Inputs(real.path, 1, synthetic=synthetic.path)
    with results_of(train, "select") as selected:
        tune_arm(recipe, inputs, candidates(recipe, CHANGES[:2]), few, out=tmp_path, fingerprint="abc")
    assert read_tuning(tmp_path)["val_clips"] == len(part.val)
    assert {len(one.ids) for one in selected} == {24 - len(part.val)}


@pytest.mark.parametrize(
    ("maps", "chosen"),
    [
        ([0.5, 0.6, 0.5, 0.5], 1),
        ([0.6, 0.6, 0.5, 0.5], 0),
        ([0.6, 0.6, 0.5, 0.6], 3),  # fewer steps
        ([0.6, 0.6, 0.6, 0.6], 2),  # of fewer steps, the first
    ],
)
def test_of_equal_candidates_the_shorter_then_the_first_is_chosen(
    stores, tmp_path, monkeypatch, maps, chosen
):
    answers, changes = iter(maps), CHANGES[::-1]
    monkeypatch.setattr(cell_training, "_scores", lambda *_: np.zeros((4, 2)))
    monkeypatch.setattr("ajbench.metrics.ranking.summary", lambda *_: {"map": next(answers)})
    assert tune(stores, tmp_path, changes=changes)["chosen"] == chosen
    settings = settings_of(tmp_path, recipe_of().classifier)
    assert {"train_steps": settings.train_steps, "lr": settings.lr} == changes[chosen]


def test_an_interrupted_choice_goes_on_with_the_candidate_it_was_at(stores, tmp_path):
    whole = tune(stores, tmp_path / "whole")
    with stopped_at(train.loop, "fit", 3):
        tune(stores, tmp_path / "parts")
    assert not (tmp_path / "parts" / "tune.json").exists()
    with results_of(train.loop, "fit") as fits:
        again = tune(stores, tmp_path / "parts")
    assert len(fits) == 2 and again == whole
    (tmp_path / "parts" / "candidate-0").mkdir()  # killed before the classifiers were deleted
    with results_of(train.loop, "fit") as fits:
        tune(stores, tmp_path / "parts")
    assert not fits and [path.name for path in (tmp_path / "parts").iterdir()] == ["tune.json"]


def test_heads_choose_their_options(stores, tmp_path):
    changes = [{"options": {"c": c}} for c in (1e-6, 1.0)]
    head = {"name": "head", "aug": "none", "options": {"hidden": 3}}
    found = tune(stores, tmp_path / "out", Mix(dose=4), changes, **head)
    assert [line["keys"] for line in found["candidates"]] == changes
    settings = settings_of(tmp_path / "out", recipe_of(**head).classifier)
    assert settings.options == {"hidden": 3} | changes[found["chosen"]]["options"]


def test_a_damaged_choice_is_not_another_choice(tmp_path):
    path = tmp_path / "tune.json"
    write_sealed(path, {"val_clips": 4, "chosen": 0, "candidates": [{"keys": {}}, {"keys": {"lr": 1}}]})
    flip_in(path, '"chosen": 0')
    for text in (path.read_text(), "{", "[]", '{"chosen": 0}'):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=r"tune\.json: damaged .*; delete its folder"):
            settings_of(tmp_path, recipe_of().classifier)


def test_a_classifier_is_trained_with_the_chosen_keys(stores, tmp_path):
    real, _ = stores
    (tmp_path / "tune").mkdir()
    lines = [{"keys": change, "steps": 1, "val_map": 0.5} for change in CHANGES]
    (tmp_path / "tune" / "tune.json").write_text(
        json.dumps({"val_clips": 1, "chosen": 3, "candidates": lines})
    )
    outs = {"tuned": (recipe_of(), tmp_path / "tune"), "plain": (recipe_of(**CHANGES[3]), None)}
    for name, (recipe, tuning) in outs.items():
        (tmp_path / name).mkdir()
        inputs = Inputs(real.path, 1)
        cell_training.train_and_score(recipe, inputs, out=tmp_path / name, fingerprint="abc", tuning=tuning)
    tuned, plain = (classifier_weights(tmp_path / name) for name in outs)
    assert all((tuned[key] == plain[key]).all() for key in plain)
    assert (tmp_path / "tuned" / "scores.npz").exists()
    assert "lr: 0.01" in (tmp_path / "tuned" / "recipe.yaml").read_text()


def test_scores_that_amplify_needs_are_kept_by_an_interrupted_training(stores, tmp_path, monkeypatch):
    real, _ = stores
    recipe, asked = recipe_of(), []
    recipe = recipe.model_copy(update={"mix": Mix(amplify=1, balanced=True)})
    values = np.linspace(0.2, 0.9, len(real.meta.labels))

    def class_ap(*given):
        asked.append(given)
        return values

    monkeypatch.setattr(cell_training, "class_ap", class_ap)
    inputs, out = Inputs(real.path, 1, base=tmp_path / "base"), tmp_path / "out"

    def fit(folder):
        cell_training.train_and_score(recipe, inputs, out=folder, fingerprint="abc")

    for folder in (out, tmp_path / "whole"):
        folder.mkdir()
    with stopped_at(train.loop, "fit", 1):
        fit(out)
    assert len(asked) == 1
    fit(out)
    assert len(asked) == 1
    fit(tmp_path / "whole")
    one, other = (classifier_weights(folder) for folder in (out, tmp_path / "whole"))
    assert all((one[key] == other[key]).all() for key in one)
    content = bytearray((out / "class_ap.npz").read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 1
    (out / "class_ap.npz").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"class_ap\.npz: damaged"):
        fit(out)
