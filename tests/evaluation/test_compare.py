"""Folders and stores of clips compared: what is heard, kept, paired, counted and refused."""

import json

import numpy as np
import pytest
import soundfile
from commanded import eval_gen, untrained
from fakes import make_store
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data import annotations
from ajbench.data.clip_set import open_set
from ajbench.evaluation import compare, protocols
from ajbench.evaluation.feature_cache import embed
from ajbench.features import extractor as features
from ajbench.metrics import bootstrap
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

USUAL = ["fd", "is", "kl", "kl_sigmoid"]  # of folders
PLAIN, LIU = protocols.find("ajbench"), protocols.find("audioldm_eval")


class Ear:
    """Levels of twelve pieces of a clip as features, and some sums of them as logits."""

    name, labels, mids, weights_hash = "ear", tuple("abcde"), None, "w1"
    sample_rate, min_samples, max_samples = 16_000, 240, None
    frames = texts = False

    def __init__(self):
        self.heard = 0
        self.mix = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)

    def __call__(self, wav):
        self.heard += len(wav)
        pieces = np.stack([part.std(axis=1) for part in np.array_split(np.asarray(wav), 12, axis=1)], axis=1)
        return pieces.astype(np.float32), (np.log(pieces + 1e-3) @ self.mix).astype(np.float32)


def write(path, seed, seconds=0.5, rate=16_000, channels=1):
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    envelope = np.interp(np.arange(n), np.linspace(0, n, 13), rng.uniform(0.02, 0.3, 13))[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, rng.normal(size=(n, channels)) * envelope * 0.3, rate, subtype="PCM_16")


@pytest.fixture
def folders(tmp_path):
    for k in range(20):
        write(tmp_path / "gen" / f"clip-{k}.wav", k)
        write(tmp_path / "ref" / f"clip-{k}.flac", 100 + k)
    return tmp_path


def sets(folders):
    return open_set(folders / "gen"), open_set(folders / "ref")


def measure(folders, ear=None, protocol=PLAIN, **more):
    return compare.compare(*sets(folders), ear or Ear(), protocol, folders / "cache", **more)


# Sets


def test_a_folder_is_its_sound_files_by_their_path_without_suffix(folders):
    write(folders / "gen" / "deep" / "more.WAV", 1)
    (folders / "gen" / "notes.csv").write_text("x")
    (folders / "gen" / ".hidden.wav").write_text("x")
    found = open_set(folders / "gen")
    assert len(found) == 21 and found.others == 1 and found.names[-1] == "deep/more"
    samples, rate = found.samples(0)
    assert rate == 16_000 and samples.shape == (8_000, 1) and set(found.parents) == {None}


def test_the_content_of_a_clip_is_that_of_its_file_wherever_it_lies(folders):
    write(folders / "other" / "x.wav", 5)
    gen, other = open_set(folders / "gen"), open_set(folders / "other")
    assert (
        other.content(0) == gen.content(gen.names.index("clip-5")) != gen.content(gen.names.index("clip-6"))
    )


def test_a_store_has_ids_parents_and_splits(tmp_path):
    store = make_store(tmp_path / "real")
    whole, held_out = open_set(store.path), open_set(store.path, "eval")
    assert list(whole.names) == store.clip_ids
    assert list(held_out.names) == [store.clip_ids[i] for i in store.split_indices("eval")]
    assert np.array_equal(held_out.samples(0)[0][:, 0], store.audio(store.split_indices("eval")[:1])[0])


def test_what_is_no_set_of_clips_is_refused(folders):
    (folders / "empty").mkdir()
    with pytest.raises(MissingError, match="no such folder"):
        open_set(folders / "nothing")
    with pytest.raises(MissingError, match="no sound file among 0 files"):
        open_set(folders / "empty")
    with pytest.raises(UsageError, match="has no splits"):
        open_set(folders / "gen", "eval")
    write(folders / "gen" / "clip-3.flac", 1)
    with pytest.raises(UsageError, match=r"clip-3\.wav: clip-3\.flac is beside it|clip-3"):
        open_set(folders / "gen")


# Features, kept


def test_features_are_computed_once_for_a_content_and_protocol(folders):
    ear, gen = Ear(), open_set(folders / "gen")
    first = embed(gen, ear, PLAIN, folders / "cache")
    again = embed(gen, ear, PLAIN, folders / "cache")
    assert (first.computed, again.computed, ear.heard) == (20, 0, 20)
    assert np.array_equal(first.features, again.features) and np.array_equal(first.logits, again.logits)
    for number in (0, 7):  # each in its place
        wave = gen.samples(number)[0].T
        assert np.array_equal(again.features[number], Ear()(wave)[0][0])
    write(folders / "gen" / "clip-5.wav", 77)
    assert embed(open_set(folders / "gen"), ear, PLAIN, folders / "cache").computed == 1
    assert embed(open_set(folders / "gen"), ear, LIU, folders / "cache").computed == 20
    ear.weights_hash = "w2"
    assert embed(open_set(folders / "gen"), ear, PLAIN, folders / "cache").computed == 20


def test_each_clip_has_its_own_numbers_whatever_lengths_lie_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ajbench.evaluation.feature_cache.WAITING", 20)
    for k in range(40):
        write(tmp_path / "mixed" / f"{k:02d}.wav", k, seconds=(0.5, 0.5, 0.6, 0.3 + k / 100)[k % 4])
    clips, sizes = open_set(tmp_path / "mixed"), []

    class Counting(Ear):
        def __call__(self, wav):
            sizes.append(len(wav))
            return super().__call__(wav)

    found = embed(clips, Counting(), PLAIN, tmp_path / "cache")
    assert found.numbers.tolist() == list(range(40)) and {1, 8} == set(sizes) and sum(sizes) == 40
    for number in range(40):
        features, logits = Ear()(clips.samples(number)[0].T)
        assert found.features[number] == pytest.approx(features[0], rel=1e-5)
        assert found.logits[number] == pytest.approx(logits[0], rel=1e-4, abs=1e-4)


def test_what_was_computed_before_an_end_is_kept(folders, monkeypatch):
    monkeypatch.setattr("ajbench.evaluation.feature_cache.PART", 4)
    ear, gen = Ear(), open_set(folders / "gen")

    class Ending(Ear):
        def __call__(self, wav):
            if self.heard == 8:
                raise KeyboardInterrupt
            return super().__call__(wav)

    with pytest.raises(KeyboardInterrupt):
        embed(gen, Ending(), PLAIN, folders / "cache")
    assert embed(gen, ear, PLAIN, folders / "cache").computed == 12


def test_a_damaged_or_mistaken_cache_is_refused(folders):
    embed(open_set(folders / "gen"), Ear(), PLAIN, folders / "cache")
    home = folders / "cache" / "ear-w1-ajbench"
    (part,) = home.glob("part-*.arrow")
    other = folders / "cache" / "ear-w1-audioldm_eval"
    other.mkdir()
    (other / part.name).write_bytes(part.read_bytes())
    with pytest.raises(IntegrityError, match="features of something else than ear-w1-audioldm_eval"):
        embed(open_set(folders / "gen"), Ear(), LIU, folders / "cache")
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(IntegrityError, match="damaged"):
        embed(open_set(folders / "gen"), Ear(), PLAIN, folders / "cache")


@pytest.mark.parametrize(("least", "most", "length"), [(240, None, 240), (100, 150, 150), (300, 300, 300)])
def test_a_network_hears_as_many_samples_as_it_can(folders, least, most, length):
    write(folders / "short" / "a.wav", 1, seconds=0.0125 if least != 100 else 0.02)

    class Short(Ear):
        def __call__(self, wav):
            assert wav.shape == (1, length)
            return super().__call__(wav)

    Short.min_samples, Short.max_samples = least, most
    assert embed(open_set(folders / "short"), Short(), PLAIN, folders / "cache").computed == 1


def test_windows_are_averaged(folders):
    write(folders / "long" / "a.wav", 1, seconds=13)
    found = embed(
        open_set(folders / "long"), Ear(), protocols.find("stable-audio-metrics"), folders / "cache"
    )
    samples = open_set(folders / "long").samples(0)[0]
    protocol = protocols.find("stable-audio-metrics")
    windows = protocol.windows(protocol.wave(samples, 16_000, 16_000), 16_000)
    assert len(windows) == 2
    assert found.features[0] == pytest.approx(Ear()(windows)[0].mean(axis=0), rel=1e-6)


# Comparison


def test_values_are_those_of_the_metrics_on_these_features(folders):
    found = measure(folders, resamples=50)
    gen, ref = (embed(clips, Ear(), PLAIN, folders / "cache") for clips in sets(folders))
    values = {row["metric"]: row for row in found.rows}
    assert list(values) == USUAL and not found.troubles
    assert values["fd"]["value"] == pytest.approx(frechet_distance(gen.features, ref.features), rel=1e-9)
    assert values["is"]["value"] == pytest.approx(inception_score(gen.logits)[0], rel=1e-9)
    assert values["kl"]["value"] == pytest.approx(kl_divergence(gen.logits, ref.logits), rel=1e-9)
    sigmoid = kl_divergence(gen.logits, ref.logits, "sigmoid")
    assert values["kl_sigmoid"]["value"] == pytest.approx(sigmoid, rel=1e-9)
    for row in found.rows:
        assert row["ci_low"] < row["value"] < row["ci_high"] and (row["n"], row["protocol"]) == (
            20,
            "ajbench",
        )


def test_direction_and_epsilon_of_kl_are_the_protocols(folders):
    values = {}
    for name in ("av-benchmark", "stable-audio-metrics"):
        (row,) = measure(folders, protocol=protocols.find(name), metrics=["kl"]).rows
        gen, ref = (embed(clips, Ear(), protocols.find(name), folders / "cache") for clips in sets(folders))
        values[name] = row["value"], gen.logits, ref.logits
    value, gen, ref = values["av-benchmark"]
    assert value == pytest.approx(kl_divergence(gen, ref, eps=0), rel=1e-9)
    value, gen, ref = values["stable-audio-metrics"]
    assert value == pytest.approx(kl_divergence(gen, ref, direction="gen||ref"), rel=1e-9)


def test_sets_that_share_no_name_have_no_kl(folders):
    for k in range(20):
        (folders / "gen" / f"clip-{k}.wav").rename(folders / "gen" / f"made-{k}.wav")
    found = measure(folders)
    assert [row["metric"] for row in found.rows] == ["fd", "is"] and not found.troubles
    assert any("share no name" in note for note in found.notes)
    with pytest.raises(UsageError, match=r"--metrics kl: .*share no name \(such as 'made-0' and 'clip-0'\)"):
        measure(folders, metrics=["fd", "kl"])
    lines = ["gen,ref", *(f"made-{k},clip-{19 - k}" for k in range(20))]
    (folders / "pairs.csv").write_text("\n".join(lines))
    pairs = compare.pairs_of(*sets(folders), folders / "pairs.csv")
    (row,) = measure(folders, metrics=["kl"], pairs=pairs).rows
    gen, ref = (embed(clips, Ear(), PLAIN, folders / "cache") for clips in sets(folders))
    order = [sets(folders)[1].names.index(pairs[name]) for name in sets(folders)[0].names]
    assert row["value"] == pytest.approx(kl_divergence(gen.logits, ref.logits[order]), rel=1e-9)


def test_pairs_must_name_clips(folders):
    (folders / "pairs.csv").write_text("gen,ref\nclip-0,clip-1\nclip-1,clip-99\n")
    with pytest.raises(UsageError, match="no clip 'clip-99' in the set ref"):
        compare.pairs_of(*sets(folders), folders / "pairs.csv")
    (folders / "pairs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="gen and ref are needed"):
        compare.pairs_of(*sets(folders), folders / "pairs.csv")
    with pytest.raises(MissingError, match="no such file"):
        compare.pairs_of(*sets(folders), folders / "none.csv")
    (folders / "pairs.csv").write_text("gen,ref\nclip-0,clip-1\nclip-2,clip-2\nclip-0,clip-3\n")
    with pytest.raises(UsageError, match="the generated clip 'clip-0' is on two lines"):
        compare.pairs_of(*sets(folders), folders / "pairs.csv")


@pytest.mark.parametrize("option", ["--pairs", "--labels", "--captions"])
def test_what_is_no_table_is_refused_in_a_line(folders, option):
    gen, ref = sets(folders)
    path = folders / "table.csv"
    read = {
        "--pairs": lambda: compare.pairs_of(gen, ref, path),
        "--labels": lambda: annotations.asked_of(gen, str(path)),
        "--captions": lambda: annotations.captions_of(gen, path),
    }[option]
    columns = {"--pairs": b"gen,ref", "--labels": b"clip,labels", "--captions": b"clip,caption"}[option]
    for content in (b"", b"\n", columns, columns + b"\nclip-0,a\nclip-1,b,c,d\n", columns + b"\nclip-0\n"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"^{option} .*table.csv: ") as error:
            read()
        assert "\n" not in str(error.value)
    for content in (bytes(range(256)) * 9, b"\x00" * 99, b"\x1f\x8b\x08\x00" * 5):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"^{option} .*table.csv: ") as error:
            read()
        assert "\n" not in str(error.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=f"^{option} .*cannot be read .*directory"):
        read()


def test_a_clip_may_be_named_na(folders):
    for side, suffix in (("gen", "wav"), ("ref", "flac")):
        (folders / side / f"clip-0.{suffix}").rename(folders / side / f"NA.{suffix}")
    (folders / "pairs.csv").write_text("gen,ref\nNA,NA\n")
    assert compare.pairs_of(*sets(folders), folders / "pairs.csv") == {"NA": "NA"}


def test_a_second_run_does_not_load_the_network(folders, monkeypatch):
    untrained(folders / "judge", "abcde", 8_000)
    asked = {"metrics": ["fd", "is", "kl"], "resamples": 3}
    first = measure(folders, features.LazyExtractor("reference", folders / "judge"), **asked)
    monkeypatch.setattr(features.Reference, "__init__", lambda *_: pytest.fail("it is loaded again"))
    again = measure(folders, features.LazyExtractor("reference", folders / "judge"), **asked)
    assert again.rows == first.rows and len(first.rows) == 3


def test_unusable_and_unpaired_clips_are_counted_and_refused_or_left_out(folders, capsys):
    soundfile.write(folders / "gen" / "clip-1.wav", np.zeros(8_000), 16_000)
    (folders / "gen" / "clip-2.wav").write_bytes(b"RIFF nothing")
    soundfile.write(folders / "gen" / "clip-3.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    (folders / "ref" / "clip-4.flac").write_bytes(b"")
    (folders / "gen" / "clip-5.wav").rename(folders / "gen" / "new.wav")
    with pytest.raises(MissingError, match=r"6 of 40 clips cannot be measured: .*--allow-partial"):
        measure(folders)
    shown = capsys.readouterr().err
    assert shown.count("cannot be measured: ") == 6 and "gen clip-1: silent" in shown
    found = measure(folders, allow_partial=True)
    reasons = {(one.set, one.clip): one.reason.partition(" (")[0] for one in found.troubles}
    assert reasons == {
        ("gen", "clip-1"): "silent",
        ("gen", "clip-2"): "unreadable",
        ("gen", "clip-3"): "not finite",
        ("ref", "clip-4"): "empty",
        ("gen", "new"): "extra",
        ("ref", "clip-5"): "missing",
    }
    values = {row["metric"]: (row["n"], row["n_reference"]) for row in found.rows}
    assert values == {"fd": (17, 19), "is": (17, 0), "kl": (15, 15), "kl_sigmoid": (15, 15)}
    counts = compare.listed(*sets(folders), found.troubles)
    assert counts["gen"] == {
        "clips": 20,
        "other files": 0,
        "extra": 1,
        "silent": 1,
        "unreadable": 1,
        "not finite": 1,
    }


def test_several_sample_rates_in_a_folder_are_told(folders):
    assert not any("sample rates" in note for note in measure(folders, metrics=["fd"]).notes)
    write(folders / "gen" / "clip-7.wav", 7, rate=44_100)
    (note,) = (note for note in measure(folders, metrics=["fd"]).notes if "sample rates" in note)
    assert note.startswith("gen: 2 sample rates (19 at 16000 Hz, 1 at 44100 Hz)")


def test_a_set_of_one_clip_and_unknown_metrics_are_refused(folders):
    write(folders / "one" / "clip-0.wav", 1)
    one = open_set(folders / "one")
    with pytest.raises(MissingError, match="at least 2"):
        compare.compare(one, sets(folders)[1], Ear(), PLAIN, folders / "cache", allow_partial=True)
    with pytest.raises(UsageError, match="--metrics fdd: unknown, did you mean 'fd'"):
        measure(folders, metrics=["fdd"])


def test_clips_of_one_parent_are_resampled_together():
    groups = bootstrap.groups_of(["a", "b", "a", "c", "b"])
    counts = bootstrap.counts(groups, 300, np.random.default_rng(0))
    assert counts.shape == (300, 5)
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, 0] + counts[:, 1] + counts[:, 3] == 3).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(5), abs=0.2)


def test_of_stores_parents_are_the_pairs(tmp_path):
    real = make_store(tmp_path / "real")
    gen, ref = open_set(real.path, "train"), open_set(real.path)
    made = [*gen.names[3:], *gen.names[:3]]
    gen = compare.ClipSet(
        gen.path, [f"syn-{k}" for k in range(len(gen))], made, _store=real, _indices=gen._indices
    )
    assert compare.pairs_of(gen, ref) == dict(zip(gen.names, made, strict=True))
    found = compare.compare(gen, ref, Ear(), PLAIN, tmp_path / "cache", metrics=["kl"], resamples=0)
    assert not found.troubles and found.rows[0]["n"] == len(gen) and np.isnan(found.rows[0]["ci_low"])


# The command


def test_what_is_kept_needs_no_network(folders, monkeypatch):
    untrained(folders / "judge", ("rain", "dog"), 80_640)
    gen = open_set(folders / "gen")
    first = embed(gen, features.LazyExtractor("reference", folders / "judge"), PLAIN, folders / "cache")
    monkeypatch.setattr(features, "Reference", None)
    again = embed(gen, features.LazyExtractor("reference", folders / "judge"), PLAIN, folders / "cache")
    assert (first.computed, again.computed) == (20, 0)
    assert np.array_equal(first.features, again.features)


def test_the_command_prints_rows_and_writes_them(folders):
    judge = untrained(folders / "judge", ("rain", "dog"), 80_640)
    for k in range(4, 20):  # a few clips will do
        (folders / "gen" / f"clip-{k}.wav").unlink()
        (folders / "ref" / f"clip-{k}.flac").unlink()
    command = [*eval_gen(folders, judge, "20"), "--json", "-q"]
    done = CliRunner().invoke(app, [*command, "--out", str(folders / "out.csv")])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert [row["metric"] for row in shown["rows"]] == USUAL
    assert shown["counts"]["gen"] == {"clips": 4, "other files": 0}
    lines = (folders / "out.csv").read_text().splitlines()
    assert len(lines) == 5 and "protocol" in lines[0] and "audioldm_eval" not in lines[1]
    assert CliRunner().invoke(app, command[:3]).exit_code == 2
    again = [*command, "--out", str(folders / "out.csv")]
    assert CliRunner().invoke(app, again).exit_code == 2  # it is there
    assert CliRunner().invoke(app, [*again, "--force"]).exit_code == 0
    soundfile.write(folders / "gen" / "clip-1.wav", np.zeros(8_000), 16_000)
    assert CliRunner().invoke(app, command).exit_code == 3
    done = CliRunner().invoke(app, [*command, "--allow-partial"])
    assert done.exit_code == 0 and json.loads(done.stdout)["troubles"][0]["clip"] == "clip-1"
