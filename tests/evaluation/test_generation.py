import numpy as np
import pytest
import torch
from fakes import ESC10_CONTEXT as CONTEXT
from fakes import ESC10_LABELS as LABELS
from fakes import write_result_store

from ajbench.core.errors import UsageError
from ajbench.data.store import ClipStore
from ajbench.evaluation import generation, yardsticks
from ajbench.metrics.distribution import frechet_distance, kl_divergence


class Ear:
    """An extractor without weights: energies in 24 bands, and for each class the one at its pitch."""

    name, mids, sample_rate = "ear", None, 16_000
    labels = tuple(LABELS)

    def __call__(self, wav):
        return self.features(wav), self.logits(wav)

    def _spectrum(self, wav):
        return np.abs(np.fft.rfft(np.asarray(wav), axis=1)) / wav.shape[1]

    def features(self, wav):
        bands = np.array_split(self._spectrum(wav), 24, axis=1)
        return np.log(np.stack([band.mean(axis=1) for band in bands], axis=1) + 1e-6).astype(np.float32)

    def logits(self, wav):
        spectrum = self._spectrum(wav)
        bins = [round(180 * (c + 2) * wav.shape[1] / 16_000) for c in range(len(LABELS))]
        return np.log(np.stack([spectrum[:, b - 2 : b + 3].max(axis=1) for b in bins], axis=1)).astype(
            np.float32
        )


class TonalCodec:
    """A codec whose decoding depends on its codes alone."""

    def decode(self, codes):
        steps = torch.as_tensor(codes[:, 0].astype(np.float32)).repeat_interleave(320, dim=1)
        return 0.1 * torch.sin(steps * torch.arange(steps.shape[1]) / 500)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The real store, a close and a noisy copy of it with parents, each through the ear."""
    folder = tmp_path_factory.mktemp("stores")
    paths = {
        "real": write_result_store(folder / "real", per_class=16),
        "close": write_result_store(folder / "close", "synthetic", per_class=10, blur=0.05, parents=True),
        "noisy": write_result_store(folder / "noisy", "synthetic", per_class=10, blur=0.97, parents=True),
        "orphans": write_result_store(folder / "orphans", "synthetic", per_class=10, blur=0.05),
    }
    return {name: generation.embed(Ear(), ClipStore.open(path)) for name, path in paths.items()}


@pytest.fixture(scope="module")
def measured(sets):
    return {
        name: generation.generation_rows(name, sets[name], sets["real"], Ear(), CONTEXT, resamples=40)
        for name in ("close", "noisy", "orphans")
    }


def pick(rows, **wanted):
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, f"{wanted}: {len(found)} rows"
    return found[0]


def test_values_are_those_of_the_metric_functions(sets, measured):
    rows, real, close = measured["close"][0], sets["real"], sets["close"]
    held_out, train = real.store.split_indices("eval"), real.store.split_indices("train")
    for table, split, reference in (("1", "eval", held_out), ("generation", "train", train)):
        row = pick(rows, table=table, metric="fd", split=split)
        assert row["value"] == pytest.approx(frechet_distance(close.features, real.features[reference]))
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["n"] == 100 and row["features"] == "ear"
    ids = {clip_id: i for i, clip_id in enumerate(real.store.clip_ids)}
    theirs = real.logits[[ids[parent] for parent in close.store.column("parent_id")]]
    row = pick(rows, table="1", metric="kl")
    assert row["value"] == pytest.approx(kl_divergence(close.logits, theirs))
    hits = close.logits.argmax(1) == np.repeat(np.arange(10), 10)
    assert pick(rows, metric="label_agreement", column="all")["value"] == pytest.approx(hits.mean())
    assert pick(rows, metric="label_agreement", column="dog")["n"] == 10


def test_worse_clips_score_worse(measured):
    close, noisy = measured["close"][0], measured["noisy"][0]
    for metric, split in (("fd", "eval"), ("fd", "train"), ("fd_class", "train"), ("kl", "train")):
        better, worse = (pick(rows, metric=metric, split=split) for rows in (close, noisy))
        assert better["ci_high"] < worse["ci_low"], metric
    better, worse = (pick(rows, metric="label_agreement", column="all") for rows in (close, noisy))
    assert better["value"] > 0.95 > worse["value"]


def test_what_is_left_out_is_said(sets, measured):
    rows, notes = measured["orphans"]
    assert not [row for row in rows if row["metric"] == "kl"]
    assert any("no KL, 100 of 100 clips lack a parent" in note for note in notes)
    rows, notes = generation.generation_rows(
        "free", sets["close"], sets["real"], Ear(), CONTEXT, paired=False, resamples=5
    )
    assert not [row for row in rows if row["metric"] == "kl"]
    assert any("answer to no real clip" in note for note in notes)


def test_few_clips_for_the_dimension_are_noted(sets):
    class Wide(Ear):
        def features(self, wav):
            return np.repeat(super().features(wav), 8, axis=1)

    real = generation.embed(Wide(), sets["real"].store)
    _, notes = generation.generation_rows("wide", real, real, Wide(), CONTEXT, resamples=2)
    assert any("from 80 clips in 192 dimensions" in note for note in notes)


def test_intervals_resample_parents_not_clips(sets):
    close = sets["close"]
    rows = {}
    for name, ids in (("families", [f"{i // 10}" for i in range(100)]), ("alone", list(range(100)))):

        class Renamed:
            meta = close.store.meta
            targets = close.store.targets
            column = staticmethod(lambda _, ids=ids: ids)

            def __len__(self):
                return 100

        other = generation.Embedded(Renamed(), close.features, close.logits)
        found = generation.generation_rows(name, other, sets["real"], Ear(), CONTEXT, resamples=60)[0]
        rows[name] = pick(found, table="1", metric="is")
    width = {name: row["ci_high"] - row["ci_low"] for name, row in rows.items()}
    assert width["families"] > 1.5 * width["alone"], "ten families tell less than 100 single clips"


def test_another_label_set_is_refused(sets):
    class Foreign:
        meta = sets["close"].store.meta.model_copy(update={"labels": ["a", "b"]})

        def __len__(self):
            return 2

    with pytest.raises(UsageError, match="its label set is not the real store's"):
        other = generation.Embedded(Foreign(), np.zeros((2, 24)), np.zeros((2, 10)))
        generation.generation_rows("foreign", other, sets["real"], Ear(), CONTEXT)


def test_classes_are_found_by_name_or_by_machine_id(sets):
    class Deaf(Ear):
        labels = ("Speech", "Music")

    notes = generation.generation_rows("x", sets["close"], sets["real"], Deaf(), CONTEXT, resamples=2)[1]
    assert any("no label agreement, ear does not know" in note for note in notes)

    class Backwards(Ear):
        labels = tuple(reversed(LABELS))

        def logits(self, wav):
            return super().logits(wav)[:, ::-1]

    backwards = generation.embed(Backwards(), sets["close"].store)
    real = generation.embed(Backwards(), sets["real"].store)
    rows, _ = generation.generation_rows("x", backwards, real, Backwards(), CONTEXT, resamples=2)
    assert pick(rows, metric="label_agreement", column="all")["value"] > 0.95


def test_yardsticks_stand_in_the_order_of_what_they_are(sets, measured):
    rows, notes = yardsticks.yardstick_rows(sets["real"], Ear(), TonalCodec(), CONTEXT, n=100, resamples=20)
    fd = {row["row"]: row["value"] for row in rows if row["metric"] == "fd"}
    assert set(fd) == {
        "real, train split",
        "real through the codec",
        "shuffled codes",
        "white noise",
        "real, two halves",
    }
    close = pick(measured["close"][0], table="1", metric="fd")["value"]
    noisy = pick(measured["noisy"][0], table="1", metric="fd")["value"]
    assert fd["real, train split"] < close < min(noisy, fd["white noise"])
    same, another = (
        pick(rows, row=row, metric="fd_class") for row in ("real, same class", "real, another class")
    )
    assert same["ci_high"] < another["ci_low"]
    own = pick(rows, row="real, eval split", metric="label_agreement", column="all")
    assert own["value"] > 0.95 and own["n"] == 80
    assert not notes


def test_noise_keeps_the_level_and_shuffling_keeps_the_codes(sets):
    store, rng = sets["real"].store, np.random.default_rng(0)
    noise = np.concatenate(list(yardsticks._noise(store, np.arange(5), rng)))
    rms = [np.sqrt((wav**2).mean(axis=1)) for wav in (noise, store.audio(range(5)))]
    np.testing.assert_allclose(rms[0], rms[1], rtol=0.02)
    codes = store.codes(range(4))
    shuffled = yardsticks._shuffled(codes, rng)
    assert shuffled.dtype == np.uint16 and not np.array_equal(shuffled, codes)
    for book in range(8):
        np.testing.assert_array_equal(np.sort(shuffled[:, book].ravel()), np.sort(codes[:, book].ravel()))
