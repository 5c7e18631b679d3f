"""AudioSet's own lists, every way in which its clips are named, and what a copy with losses gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import CodecSection, Data, Recipe
from ajbench.data import store
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora import audioset
from ajbench.data.manifest import Row
from ajbench.data.verify import verify
from ajbench.pipeline.prepare import prepare

AUDIOSET = Data(corpus="audioset")
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=527, num_positive_labels=9\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
BALANCED = ['--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"', '_-aE2O5G5WE, 0.000, 9.000, "/m/03fwl"']
UNREAD = f"not read: suffix '.m4a'; convert to one of {', '.join(SUFFIXES)}"
OUTSIDE = "outside the label set's 527"
NEITHER = "neither one of the label set's 527 classes nor in the ontology"
REPEATED = "clip id '--PJHxphWEs' occurs twice; first used in line 4 of balanced_train_segments.csv"
EVAL = ['Y-4gqARaEJE, 110.000, 120.000, "/m/068hy,/m/0bt9lr"']


@pytest.fixture
def make(tmp_path):
    """make(files, balanced, eval, unbalanced=None, folder="") -> root with those lists and empty files."""

    def build(files, balanced=BALANCED, held_out=EVAL, unbalanced=None, folder=""):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, lines in (
            ("balanced_train", balanced),
            ("unbalanced_train", unbalanced),
            ("eval", held_out),
        ):
            if lines is not None:
                (tmp_path / folder / f"{name}_segments.csv").write_text(HEADER + "\n".join([*lines, ""]))
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return build


def test_all_classes_in_order_with_their_mids(audioset_dir):
    labels = audioset.label_set()
    assert len(labels) == 527
    assert (labels.names[0], labels.names[1], labels.names[526]) == (
        "Speech", "Male speech, man speaking", "Field recording",
    )  # fmt: skip
    assert labels.mids[526] == "/m/07hvw1"
    official = pd.read_csv(audioset_dir / "class_labels_indices.csv")
    assert list(labels.names) == official["display_name"].tolist()
    assert list(labels.mids) == official["mid"].tolist()


def test_the_ontology_in_short(audioset_dir):
    official = pd.read_json(audioset_dir / "ontology.json").set_index("id")
    short = audioset.ontology()
    assert list(short) == list(official.index)
    assert set(audioset.label_set().mids) < set(short)
    for mid, entry in official.iterrows():
        assert short[mid].name == entry["name"]
        assert list(short[mid].restrictions) == entry["restrictions"]
        assert all(mid in short[child].parents for child in entry["child_ids"])
    assert sum(len(sound.parents) for sound in short.values()) == official["child_ids"].map(len).sum()


@pytest.mark.parametrize("folder", ["", "csv", "metadata"])
@pytest.mark.parametrize(
    "pattern",
    [
        "{id}.wav",
        "Y{id}.wav",
        "id_{id}.flac",
        "{id}_{start}.wav",
        "Y{id}_{start}.ogg",
        "{id}_{start}_{end}.flac",
        "{id}_{start}.000_{end}.000.wav",
        "{id}_{start}000_{end}000.FLAC",
        "{id}_{start}000.mp3",
        "{id}_{start}-{end}.ogg",
        "Y{id}_{start}.0-{end}.0.wav",
        "{id}_{start:0>6}.opus",
    ],
)
def test_every_naming_pattern_in_every_folder(make, pattern, folder):
    clips = [("--PJHxphWEs", 30, 40), ("_-aE2O5G5WE", 0, 9), ("Y-4gqARaEJE", 110, 120)]
    places = ["audio/train/", "balanced_train_segments/part00/", "Male speech, man speaking/"]
    files = [
        place + pattern.format(id=name, start=start, end=end)
        for place, (name, start, end) in zip(places, clips, strict=True)
    ]
    root = make(files, folder=folder)
    manifest = audioset.read(AUDIOSET, root)
    assert manifest.problems == []
    paths = [str(root / name) for name in files]
    assert manifest.rows == [
        Row("--PJHxphWEs", paths[0], 0.0, 10.0, ("Speech", "Gush"), "train"),
        Row("_-aE2O5G5WE", paths[1], 0.0, 9.0, ("Goat",), "train"),
        Row("Y-4gqARaEJE", paths[2], 0.0, 10.0, ("Domestic animals, pets", "Dog"), "eval"),
    ]
    assert manifest.label_set == audioset.label_set()


def test_subsets(make):
    files = ["--PJHxphWEs.wav", "Y-4gqARaEJE.wav", "abcdefghijk.wav"]
    root = make(files, BALANCED[:1], EVAL, ["abcdefghijk, 0.000, 10.000, /m/09x0r", BALANCED[0]])
    for subset, train, repeated in (
        (None, ["--PJHxphWEs"], []),
        ("balanced", ["--PJHxphWEs"], []),
        ("unbalanced", ["abcdefghijk", "--PJHxphWEs"], []),
        (
            "full",
            ["--PJHxphWEs", "abcdefghijk"],
            [REPEATED],
        ),
    ):
        manifest = audioset.read(Data(corpus="audioset", subset=subset), root)
        assert [row.clip_id for row in manifest.split("train")] == train
        assert [row.clip_id for row in manifest.split("eval")] == ["Y-4gqARaEJE"]
        assert [problem.reason for problem in manifest.problems] == repeated
        assert all(p.split == "train" and p.line == 5 for p in manifest.problems)


def test_problems_are_named_with_their_line_and_split(make):
    lines = [
        BALANCED[0],
        'abcdefghij0, 0.000, 10.000, "/m/09x0r,/m/0dgw9r"',  # Human sounds: of the ontology, not of the 527
        "abcdefghij1, 0.000, 10.000, /m/nothing",
        "abcdefghij2, 0.000, 10.000, /m/09x0r",  # no file
        "abcdefghij3, 20.000, 30.000, /m/09x0r",  # a file of another start
        "abcdefghij4, 20.000, 30.000, /m/09x0r",  # a file that is not read here
        "short, 0.000, 10.000, /m/09x0r",
        "abcdefghij5, soon, 10.000, /m/09x0r",
        "abcdefghij6, 10.000, 10.000, /m/09x0r",
        'abcdefghij7, 0.000, 10.000, ""',
        "abcdefghij8, 0.000",
        BALANCED[0],
    ]
    files = ["--PJHxphWEs.wav", "Y-4gqARaEJE.wav", "a/abcdefghij3_30.wav", "abcdefghij4.m4a"]
    files += [f"abcdefghij{k}.wav" for k in (0, 1, 5, 6, 7, 8)]
    manifest = audioset.read(AUDIOSET, make(files, lines))
    assert [row.clip_id for row in manifest.rows] == ["--PJHxphWEs", "Y-4gqARaEJE"]
    assert {p.split for p in manifest.problems} == {"train"}
    assert {Path(p.path).name for p in manifest.problems} == {"balanced_train_segments.csv"}
    found = [(p.line, p.clip_id, p.reason) for p in manifest.problems]
    assert found == [
        (5, "abcdefghij0", f"mid /m/0dgw9r is 'Human sounds', a class of the ontology {OUTSIDE}"),
        (6, "abcdefghij1", f"mid /m/nothing is {NEITHER}"),
        (7, "abcdefghij2", "missing: no file is named by this id"),
        (8, "abcdefghij3", "missing: another start than 20 s (abcdefghij3_30.wav)"),
        (9, "abcdefghij4", UNREAD),
        (10, "short", "id 'short' is not 11 letters, digits, - and _"),
        (11, "abcdefghij5", "'soon' is not a time in seconds"),
        (12, "abcdefghij6", "end 10 s is not after start 10 s"),
        (13, "abcdefghij7", "labels is empty"),
        (14, "abcdefghij8", "2 cells in the row; expected YTID, start, end, labels"),
        (15, "--PJHxphWEs", REPEATED),
    ]  # fmt: skip


def test_own_label_set_and_ontology_beside_the_lists(make):
    root = make(["--PJHxphWEs.wav", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav"])
    (root / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n0,/m/068hy,Pets\n1,/m/0bt9lr,Dog\n2,/m/09x0r,Speech\n3,/t/dd00088,Gush\n"
    )
    (root / "ontology.json").write_text('[{"id": "/m/03fwl", "name": "Bass"}]')
    manifest = audioset.read(AUDIOSET, root)
    assert manifest.label_set.names == ("Pets", "Dog", "Speech", "Gush")
    assert [row.labels for row in manifest.rows] == [("Speech", "Gush"), ("Pets", "Dog")]
    assert [(p.line, p.reason) for p in manifest.problems] == [
        (5, "mid /m/03fwl is 'Bass', a class of the ontology outside the label set's 4")
    ]
    (root / "ontology.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match=r"ontology.json: not AudioSet's ontology"):
        audioset.read(AUDIOSET, root)
    (root / "class_labels_indices.csv").write_text("index,display_name\n0,Pets\n")
    with pytest.raises(UsageError, match=r"class_labels_indices.csv: column 'mid' is missing"):
        audioset.read(AUDIOSET, root)


def test_of_several_files_the_surest_and_the_same_in_every_run(make):
    files = ["b/--PJHxphWEs_30.wav", "a/--PJHxphWEs_30_40.wav", "a/--PJHxphWEs.wav", "a/--PJHxphWEs_30.mp4"]
    files += ["--PJHxphWEs_40.wav", "_-aE2O5G5WE.webm", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav"]
    manifest = audioset.read(AUDIOSET, make(files))
    assert manifest.problems == []
    assert [Path(row.path).name for row in manifest.rows] == [
        "--PJHxphWEs_30_40.wav", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav",
    ]  # fmt: skip


def test_what_is_not_there_is_named(make, tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        audioset.read(AUDIOSET, None)
    with pytest.raises(MissingError, match="nowhere: no such folder"):
        audioset.read(AUDIOSET, tmp_path / "nowhere")
    with pytest.raises(MissingError, match=r"balanced_train_segments.csv: missing; get it from https"):
        audioset.read(AUDIOSET, tmp_path)
    root = make([])
    with pytest.raises(MissingError, match=r"unbalanced_train_segments.csv: missing"):
        audioset.read(Data(corpus="audioset", subset="full"), root)
    with pytest.raises(
        MissingError, match=r"no file of the 3 clips listed; first problem, line 4: missing: no"
    ):
        audioset.read(AUDIOSET, root)
    make(["--PJHxphWEs.wav"])
    with pytest.raises(MissingError, match=r"no clips in split 'eval'; found: train"):
        audioset.read(AUDIOSET, root)
    with pytest.raises(UsageError, match=r"data.subset=esc10: .* allowed: balanced, unbalanced, full"):
        audioset.read(Data(corpus="audioset", subset="esc10"), root)
    with pytest.raises(UsageError, match=r"data.eval_fold=1: corpus audioset has splits, no folds"):
        audioset.read(Data(corpus="audioset", eval_fold=1), root)
    (root / "eval_segments.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"eval_segments.csv: not UTF-8"):
        audioset.read(AUDIOSET, root)
    (root / "eval_segments.csv").write_text('a, "b')
    with pytest.raises(UsageError, match=r"eval_segments.csv:1: not readable as CSV"):
        audioset.read(AUDIOSET, root)


def test_the_official_lists_are_read_whole(audioset_dir, tmp_path):
    for name in ("balanced_train_segments.csv", "eval_segments.csv"):
        (tmp_path / name).symlink_to(audioset_dir / name)
    for name in ("Y--PJHxphWEs.wav", "zzbTaK7CXJY_30_40.wav"):
        (tmp_path / name).touch()
    manifest = audioset.read(AUDIOSET, tmp_path)
    assert [(row.clip_id, row.split) for row in manifest.rows] == [
        ("--PJHxphWEs", "train"), ("zzbTaK7CXJY", "eval"),
    ]  # fmt: skip
    assert len(manifest.problems) == 22_160 + 20_371 - 2
    assert {p.reason for p in manifest.problems} == {"missing: no file is named by this id"}


def run(out, root):
    console.configure(quiet=True)
    recipe = Recipe(
        name="test", data=Data(corpus="audioset", duration_s=0.84), codec=CodecSection(name="tiny")
    )
    meta = prepare(recipe, root, out, fingerprint="abc")
    console.configure()
    return meta, pd.read_csv(out / "quarantine.csv", keep_default_na=False)


def test_a_copy_with_losses_says_how_much_of_audioset_it_is(audioset_dir, tmp_path, write_wav):
    """7 % of the files missing, 1 % broken: counted, listed with a reason, nothing put in their place."""
    rng, root = np.random.default_rng(0), tmp_path / "audioset"
    root.mkdir()
    lost = {}
    for name, count in (("balanced_train_segments", 100), ("eval_segments", 30)):
        lines = (audioset_dir / f"{name}.csv").read_text().splitlines()
        lines = [line for line in lines if not line.startswith("#")][:count]
        (root / f"{name}.csv").write_text("\n".join([*lines, ""]))
        clips = [line.split(",")[0] for line in lines]
        missing = {clips[k] for k in range(3, count, 14)}
        broken = {clips[k] for k in range(0, count, 100)}
        lost[name] = (missing, broken)
        for clip in clips:
            if clip not in missing:
                path = write_wav(f"audioset/audio/{name}/Y{clip}.wav", rng.uniform(-0.1, 0.1, 8000), 8000)
                if clip in broken:
                    path.write_bytes(path.read_bytes()[:5000])
    meta, table = run(tmp_path / "store", root)
    for name, split, count in (("balanced_train_segments", "train", 100), ("eval_segments", "eval", 30)):
        missing, broken = lost[name]
        assert (len(missing), len(broken)) == (count * 7 // 100, 1)
        found, kept = count - len(missing), count - len(missing) - len(broken)
        assert meta.counts[split] == {"expected": count, "found": found, "decoded": kept, "kept": kept}
        listed = table[table["path"].str.contains(name)]
        assert set(listed["clip_id"]) == missing | broken
        gone = listed[listed["reason"] == "missing: no file is named by this id"]
        assert set(gone["clip_id"]) == missing
        assert set(listed["clip_id"][listed["reason"].str.startswith("truncated")]) == broken
    assert len(meta.labels) == 527
    clips = store.ClipStore.open(tmp_path / "store")
    assert (clips.targets().sum(axis=1) > 0).all()
    verify(tmp_path / "store")


def test_whole_videos_are_read_from_the_start_of_the_segment(make, tmp_path, write_wav):
    lines = [f"abcdefghij{k}, {start}.000, {start + 10}.000, /m/09x0r" for k, start in enumerate((15, 0, 40))]
    root = make([], [*lines, "abcdefghij3, 20.000, 30.000, /m/09x0r"])
    rng = np.random.default_rng(0)
    sounds = {name: rng.uniform(-0.5, 0.5, 130_000) for name in ("abcdefghij0", "abcdefghij1", "Y-4gqARaEJE")}
    for name, sound in sounds.items():
        write_wav(f"{name}.wav", sound, 1000)  # 130 s
    write_wav("abcdefghij2.wav", rng.uniform(-0.5, 0.5, 20_000), 1000)  # ends before its segment starts
    cut = rng.uniform(-0.5, 0.5, 10_000)
    write_wav("abcdefghij3_20.wav", cut, 1000)
    meta, table = run(tmp_path / "store", root)
    assert list(table["reason"]) == ["start 40 s lies after the end (20.00 s)"]
    assert meta.counts["train"] == {"expected": 4, "found": 4, "decoded": 3, "kept": 3}
    rows = {row.clip_id: row for row in audioset.read(AUDIOSET, root).rows}
    assert {name: row.start_s for name, row in rows.items()} == {
        "abcdefghij0": 15.0,
        "abcdefghij1": 0.0,
        "abcdefghij2": 40.0,
        "abcdefghij3": 0.0,
        "Y-4gqARaEJE": 110.0,
    }
    for clip in store.ClipStore.open(tmp_path / "store"):
        sound = sounds.get(clip.clip_id, cut)[round(1000 * clip.start_s) :][:840]
        decimated = clip.audio()[::16]
        assert np.corrcoef(sound, decimated)[0, 1] > 0.9
