import json
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import ESC10_CONTEXT, ESC10_LABELS, esc10_recipe, make_store, write_result_store

from ajbench import codec
from ajbench.core.clip_sections import Mix
from ajbench.core.errors import UsageError
from ajbench.core.recipe import LINES
from ajbench.core.schema import Classifier
from ajbench.data.clip_set import open_set
from ajbench.data.store import ClipStore
from ajbench.evaluation import protocols
from ajbench.evaluation.compare import choose, measure
from ajbench.evaluation.set_pair import SetPair
from ajbench.metrics.distribution import frechet_distance, kl_divergence
from ajbench.pipeline import evaluate


class PitchExtractor:
    """Energies in 24 bands as features, and for each class the energy at its pitch as logit."""

    name, mids, sample_rate, weights_hash = "mn04", None, 16_000, "w1"
    labels, classes, frames, texts = tuple(ESC10_LABELS), True, False, False
    min_samples, max_samples = 240, None

    def __call__(self, wav):
        spectrum = np.abs(np.fft.rfft(np.asarray(wav), axis=1)) / wav.shape[1]
        bands = np.stack([band.mean(axis=1) for band in np.array_split(spectrum, 24, axis=1)], axis=1)
        bins = [round(180 * (c + 2) * wav.shape[1] / 16_000) for c in range(len(ESC10_LABELS))]
        peaks = np.stack([spectrum[:, b - 2 : b + 3].max(axis=1) for b in bins], axis=1)
        return np.log(bands + 1e-6).astype(np.float32), np.log(peaks).astype(np.float32)


class TonalCodec:
    """A codec whose decoding depends on its codes only."""

    name, weights_hash = "tonal", "t1"

    def decode(self, codes):
        import torch

        steps = torch.as_tensor(codes[:, 0].astype(np.float32)).repeat_interleave(320, dim=1)
        return 0.1 * torch.sin(steps * torch.arange(steps.shape[1]) / 500)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The real store, close and noisy copies of it with parents, close ones without, and other classes."""
    folder = tmp_path_factory.mktemp("stores")
    close, noisy = {"per_class": 10, "blur": 0.05}, {"per_class": 10, "blur": 0.97}
    return {
        "real": write_result_store(folder / "real", per_class=16),
        "close": write_result_store(folder / "close", "synthetic", **close, parents=True),
        "noisy": write_result_store(folder / "noisy", "synthetic", **noisy, parents=True),
        "strange": write_result_store(
            folder / "strange", "synthetic", **close, parents=True, of_next_class=True
        ),
        "orphans": write_result_store(folder / "orphans", "synthetic", **close),
        "foreign": make_store(folder / "foreign").path,
    }


@pytest.fixture(scope="module")
def measured(stores, tmp_path_factory):
    """measured(extractor, *names of stores, mixes, **settings of a set) -> rows, notes."""
    home = tmp_path_factory.mktemp("evaluated")
    out = home / "eval-gen-1"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"fingerprint": "f1", "git": None, "device": "cpu"}))

    def run(extractor, *names, mixes=None, **section):
        recipe = esc10_recipe(features="mn04", bootstrap=100, probes={name: section for name in names})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluate, "LazyExtractor", lambda *_: extractor)
            patch.setattr(codec, "load", lambda *_: TonalCodec())
            sets, cache = {name: stores[name] for name in names}, home / "features"
            where = out, "esc10 fold 5", cache
            return evaluate.measure_sets(recipe, stores["real"], sets, None, *where, mixes or {})

    return run


@pytest.fixture(scope="module")
def usual(measured):
    return measured(PitchExtractor(), "close", "noisy", "orphans")


def pick(rows, **wanted):
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, f"{wanted}: {len(found)} rows"
    return found[0]


def test_values_are_those_of_the_metric_functions(stores, usual):
    rows, real, close = usual[0], ClipStore.open(stores["real"]), ClipStore.open(stores["close"])
    (x, z), (y, w) = (PitchExtractor()(store.audio(range(len(store)))) for store in (close, real))
    for table, split in (("1", "eval"), ("generation", "train")):
        row = pick(rows, row="close", table=table, metric="fd")
        assert row["value"] == pytest.approx(frechet_distance(x, y[real.split_indices(split)]), rel=1e-5)
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["n"] == 100 and row["features"] == "mn04"
        assert (row["split"], row["run"], row["dataset"]) == (split, "eval-gen-1", "esc10 fold 5")
    ids = {clip_id: i for i, clip_id in enumerate(real.clip_ids)}
    parents = [ids[parent] for parent in close.column("parent_id")]
    row = pick(rows, row="close", table="1", metric="kl")
    assert row["value"] == pytest.approx(kl_divergence(z, w[parents]), rel=1e-5)
    hits = z.argmax(1) == np.repeat(np.arange(10), 10)
    row = pick(rows, row="close", metric="label_agreement", column="all")
    assert row["value"] == pytest.approx(hits.mean())
    assert pick(rows, row="close", metric="label_agreement", column="dog")["n"] == 10


def test_no_probe_can_have_the_name_of_a_baseline(usual):
    baselines = {row["row"] for row in usual[0]} - {"close", "noisy", "orphans"}
    assert len(baselines) > 6 and baselines <= set(LINES)


def test_of_a_mix_only_the_clips_that_it_takes_are_measured(stores, usual, measured):
    rows, _ = measured(PitchExtractor(), "close", "noisy", mixes={"close": Mix(dose=30)})
    row, real = pick(rows, row="close", table="1", metric="fd"), ClipStore.open(stores["real"])
    x = PitchExtractor()(ClipStore.open(stores["close"]).audio(range(30)))[0]
    y = PitchExtractor()(real.audio(real.split_indices("eval")))[0]
    assert row["value"] == pytest.approx(frechet_distance(x, y), rel=1e-5) and row["n"] == 30
    same = [pick(found, row="noisy", table="1", metric="fd")["value"] for found in (rows, usual[0])]
    assert same[0] == pytest.approx(same[1])


def test_of_a_large_train_split_some_clips_are_drawn_and_kl_reads_parents_alone(measured, usual, monkeypatch):
    monkeypatch.setattr(evaluate, "MOST", 40)
    sizes, made = [], evaluate.SetPair

    def pair_of(gen, ref, **how):
        sizes.append(len(ref))
        return made(gen, ref, **how)

    monkeypatch.setattr(evaluate, "SetPair", pair_of)
    rows, notes = measured(PitchExtractor(), "close")
    found = [pick(some, row="close", table="1", metric="kl")["value"] for some in (rows, usual[0])]
    assert found[0] == pytest.approx(found[1])
    assert any(note.startswith("train split: 40 clips, drawn of ") for note in notes)
    held_out, drawn, parents, baseline = sizes
    assert (drawn, baseline) == (40, 40) and parents < held_out + 40


def test_a_recipe_has_the_value_and_interval_of_eval_gen_on_its_folders(stores, usual, tmp_path):
    parts = ("eval", "fd"), ("eval", "is"), (None, "kl"), ("train", "fd"), ("train", "fd_class")
    for split, metric in parts:
        how = PitchExtractor(), protocols.find("ajbench"), tmp_path
        pair = SetPair(open_set(stores["close"]), open_set(stores["real"], split), *how, resamples=100)
        (line,) = measure(pair, choose(pair, [metric]), allow_partial=True).rows
        table = "generation" if split == "train" else "1"
        row, keys = pick(usual[0], row="close", metric=metric, table=table), ("value", "ci_low", "ci_high")
        assert [row[key] for key in keys] == pytest.approx([line[key] for key in keys], rel=1e-12)


def test_worse_clips_have_worse_values(usual):
    def both(**wanted):
        return [pick(usual[0], row=row, **wanted) for row in ("close", "noisy")]

    for metric, split in (("fd", "eval"), ("fd", "train"), ("fd_class", "train"), ("kl", "train")):
        better, worse = both(metric=metric, split=split)
        assert better["ci_high"] < worse["ci_low"], metric
    better, worse = both(metric="label_agreement", column="all")
    assert better["value"] > 0.95 > worse["value"]


def test_clips_without_a_parent_have_no_kl(usual, measured):
    rows, notes = usual
    assert not [row for row in rows if row["row"] == "orphans" and row["metric"] == "kl"]
    assert any(note.startswith("orphans: no kl: 100 of 100 clips") for note in notes)
    rows, notes = measured(PitchExtractor(), "close", strength=1.0, prompt="none")
    assert not [row for row in rows if row["metric"] == "kl"]
    assert any(note.startswith("close: no kl: ") for note in notes)


def test_agreement_is_told_apart_where_guides_lack_requested_classes(usual, measured):
    assert not [row for row in usual[0] if "guide" in row["metric"]]
    assert not any("guide" in note for note in usual[1])
    rows = measured(PitchExtractor(), "strange")[0]
    row = pick(rows, metric="agreement_not_in_guide")
    assert row["value"] == pick(rows, row="strange", metric="label_agreement", column="all")["value"] > 0.95
    assert (row["table"], row["column"], row["n"]) == ("generation", "", 100)
    assert row["ci_low"] < row["value"] <= row["ci_high"] <= 1


def test_few_clips_for_the_dimension_are_noted(measured):
    class Wide(PitchExtractor):
        weights_hash = "w2"

        def __call__(self, wav):
            features, logits = super().__call__(wav)
            return np.repeat(features, 8, axis=1), logits

    notes = measured(Wide(), "close")[1]
    assert any("80 clips in 192 dimensions" in note for note in notes)


def test_a_set_that_was_selected_by_the_extractor_is_noted(measured):
    assert any("selected" in note for note in measured(PitchExtractor(), "close", judge="mn04")[1])


def test_another_label_set_is_refused(measured):
    with pytest.raises(UsageError, match="foreign"):
        measured(PitchExtractor(), "foreign")


def test_classes_are_found_by_name_wherever_they_are(measured):
    class Other(PitchExtractor):
        labels, weights_hash = ("Speech", "Music"), "w3"

    rows, notes = measured(Other(), "close")
    assert not [row for row in rows if row["metric"] == "label_agreement"]
    assert any("close: no label_agreement: mn04 does not know 10 of 10" in note for note in notes)

    class Backwards(PitchExtractor):
        labels, weights_hash = tuple(reversed(ESC10_LABELS)), "w4"

        def __call__(self, wav):
            features, logits = super().__call__(wav)
            return features, logits[:, ::-1].copy()

    rows = measured(Backwards(), "close")[0]
    assert pick(rows, row="close", metric="label_agreement", column="all")["value"] > 0.95


def test_baselines_are_in_the_order_of_their_quality(usual):
    rows = usual[0]
    fd = {row["row"]: row["value"] for row in rows if row["metric"] == "fd" and row["table"] == "generation"}
    known = {
        "real, train split",
        "real through the codec",
        "shuffled codes",
        "pink noise",
        "real, two halves",
    }
    assert set(fd) == known | {"close", "noisy", "orphans"}
    close, noisy = (pick(rows, row=row, table="1", metric="fd")["value"] for row in ("close", "noisy"))
    assert fd["real, train split"] < close < min(noisy, fd["pink noise"])
    assert fd["real through the codec"] != fd["shuffled codes"]
    kinds = ("same", "another")
    same, another = (pick(rows, row=f"real, {kind} class", metric="fd_class") for kind in kinds)
    assert same["ci_high"] < another["ci_low"] and same["split"] == "train"
    own = pick(rows, row="real, eval split", metric="label_agreement", column="all")
    assert own["value"] > 0.95 and own["n"] == 80 and own["split"] == "eval"


def test_what_starts_from_weights_is_named_by_them():
    names = [Classifier(init=init).pretraining for init in (None, "imagenet", "MIT/ast-audioset", "w.pt")]
    assert names == ["-", "IM", "AS", "PT"]
    made = SimpleNamespace(synth=SimpleNamespace(strength=0.5))
    assert evaluate.set_name(made, "") == "img2img" and evaluate.set_name(made, "noise") == "noise"


def test_a_class_called_all_is_not_taken_for_all_classes():
    line = {"row": "G", "metric": "label_agreement", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 9}
    rows = [
        evaluate._row(ESC10_CONTEXT, line | {"of": of, "features": "mn04"}, "eval")
        for of in ("", "all", "dog")
    ]
    assert [row["column"] for row in rows] == ["all", "all (class)", "dog"]
