"""AudioSet's lists, all file names that downloaders use, and copies with missing or damaged files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import check_problems, prepared_store

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset
from ajbench.data.manifest import Row, read_label_set
from ajbench.data.verify import verify

AUDIOSET = Data(corpus="audioset")
BALANCED = ['--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"', '_-aE2O5G5WE, 0.000, 9.000, "/m/03fwl"']
EVAL = ['Y-4gqARaEJE, 110.000, 120.000, "/m/068hy,/m/0bt9lr"']
PATTERNS = """
{id}.wav Y{id}.wav id_{id}.flac {id}_{start}.wav Y{id}_{start}.ogg {id}_{start}_{end}.flac
{id}_{start}.000_{end}.000.wav {id}_{start}000_{end}000.FLAC {id}_{start}000.mp3 {id}_{start}-{end}.ogg
Y{id}_{start}.0-{end}.0.wav {id}_{start:0>6}.opus
"""


@pytest.fixture
def make(touch):
    """make(files, balanced, unbalanced=None, folder="") -> root with these lists and empty files."""

    def build(files, balanced=BALANCED, unbalanced=None, folder=""):
        lists = {"balanced_train": balanced, "unbalanced_train": unbalanced, "eval": EVAL}
        header = ["# Segments csv created Sun Mar  5", "# YTID, start_seconds, end_seconds, positive_labels"]
        tables = {
            Path(folder, f"{name}_segments.csv"): lists[name] and header + lists[name] for name in lists
        }
        return touch(*files, tables=tables)

    return build


def test_the_label_set_has_all_classes_in_order_with_their_mids(audioset_dir):
    labels = audioset.label_set()
    assert len(labels) == 527 and labels == read_label_set(audioset_dir / "class_labels_indices.csv")
    official = pd.read_csv(audioset_dir / "class_labels_indices.csv")
    assert list(labels.names) == official["display_name"].tolist()
    assert list(labels.mids) == official["mid"].tolist()


def test_the_ontology_is_complete(audioset_dir):
    official = pd.read_json(audioset_dir / "ontology.json").set_index("id")
    short = audioset.ontology()
    assert list(short) == list(official.index)
    assert set(audioset.label_set().mids) < set(short)
    for mid, entry in official.iterrows():
        assert short[mid].name == entry["name"]
        assert list(short[mid].restrictions) == entry["restrictions"]
        assert short[mid].description == " ".join(entry["description"].split())
        assert all(mid in short[child].parents for child in entry["child_ids"])
    assert sum(len(sound.parents) for sound in short.values()) == official["child_ids"].map(len).sum()


@pytest.mark.parametrize("folder", ["", "csv", "metadata"])
@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_all_file_name_patterns_and_folders(make, pattern, folder):
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
        Row("--PJHxphWEs", paths[0], 0.0, 10.0, ("Speech", "Gush"), "train", recording="youtube:--PJHxphWEs"),
        Row("_-aE2O5G5WE", paths[1], 0.0, 9.0, ("Goat",), "train", recording="youtube:_-aE2O5G5WE"),
        Row(
            "Y-4gqARaEJE", paths[2], 0.0, 10.0, ("Domestic animals, pets", "Dog"), "eval",
            recording="youtube:Y-4gqARaEJE",
        ),
    ]  # fmt: skip
    assert manifest.label_set == audioset.label_set()


@pytest.mark.parametrize(
    ("subset", "train", "repeated"),
    [
        (None, ["--PJHxphWEs"], []),
        ("balanced", ["--PJHxphWEs"], []),
        ("unbalanced", ["abcdefghijk", "--PJHxphWEs"], []),
        ("full", ["--PJHxphWEs", "abcdefghijk"], [(4, "--PJHxphWEs", "line 3 of balanced", "train")]),
    ],
)
def test_subsets(make, subset, train, repeated):
    files = ["--PJHxphWEs.wav", "Y-4gqARaEJE.wav", "abcdefghijk.wav"]
    root = make(files, BALANCED[:1], ["abcdefghijk, 0.000, 10.000, /m/09x0r", BALANCED[0]])
    manifest = audioset.read(Data(corpus="audioset", subset=subset), root)
    assert [row.clip_id for row in manifest.split("train")] == train
    parts = ["balanced", "unbalanced"] if subset == "full" else [None] * len(train)
    assert [row.subset for row in manifest.rows] == [*parts, None]
    assert [row.clip_id for row in manifest.split("eval")] == ["Y-4gqARaEJE"]
    check_problems(manifest.problems, *repeated)


def test_problems_have_their_line_and_split(make):
    lines = [
        BALANCED[0],
        'abcdefghij0, 0.000, 10.000, "/m/09x0r,/m/0dgw9r"',  # Human sounds: in the ontology, not a class
        "abcdefghij1, 0.000, 10.000, /m/nothing",
        "abcdefghij2, 0.000, 10.000, /m/09x0r",  # no file
        "abcdefghij3, 20.000, 30.000, /m/09x0r",  # a file with another start
        "abcdefghij4, 20.000, 30.000, /m/09x0r",  # a file with an unsupported suffix
        "short, 0.000, 10.000, /m/09x0r",
        "abcdefghij5, soon, 10.000, /m/09x0r",
        "abcdefghij6, 10.000, 10.000, /m/09x0r",
        'abcdefghij7, 0.000, 10.000, ""',
        "abcdefghij8, 0.000",
        BALANCED[0],
    ]
    files = ["--PJHxphWEs.wav", "Y-4gqARaEJE.wav", "a/abcdefghij3_30.wav", "abcdefghij4.wma"]
    files += [f"abcdefghij{k}.wav" for k in (0, 1, 5, 6, 7, 8)]
    manifest = audioset.read(AUDIOSET, make(files, lines))
    assert [row.clip_id for row in manifest.rows] == ["--PJHxphWEs", "Y-4gqARaEJE"]
    assert {Path(p.path).name for p in manifest.problems} == {"balanced_train_segments.csv"}
    expected = [
        ("abcdefghij0", "/m/0dgw9r is 'Human sounds'"),
        ("abcdefghij1", "/m/nothing"),
        ("abcdefghij2", "missing"),
        ("abcdefghij3", "20 s (found abcdefghij3_30.wav)"),
        ("abcdefghij4", "'.wma'"),
        ("short", "'short'"),
        ("abcdefghij5", "'soon'"),
        ("abcdefghij6", "end 10 s is not after start 10 s"),
        ("abcdefghij7", "labels"),
        ("abcdefghij8", "cells: 2"),
        ("--PJHxphWEs", "line 3 of balanced_train_segments.csv"),
    ]
    check_problems(manifest.problems, *((4 + k, *item, "train") for k, item in enumerate(expected)))


def test_a_label_set_and_an_ontology_next_to_the_lists_are_used(make):
    root = make(["--PJHxphWEs.wav", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav"])
    (root / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n0,/m/068hy,Pets\n1,/m/0bt9lr,Dog\n2,/m/09x0r,Speech\n3,/t/dd00088,Gush\n"
    )
    (root / "ontology.json").write_text('[{"id": "/m/03fwl", "name": "Bass"}]')
    manifest = audioset.read(AUDIOSET, root)
    assert manifest.label_set.names == ("Pets", "Dog", "Speech", "Gush")
    assert [row.labels for row in manifest.rows] == [("Speech", "Gush"), ("Pets", "Dog")]
    check_problems(manifest.problems, (4, "_-aE2O5G5WE", "mid /m/03fwl is 'Bass'", "train"))
    (root / "ontology.json").write_text('{"a": 1}')
    with pytest.raises(UsageError, match=r"ontology\.json"):
        audioset.read(AUDIOSET, root)
    (root / "class_labels_indices.csv").write_text("index,display_name\n0,Pets\n")
    with pytest.raises(UsageError, match=r"class_labels_indices\.csv.*'mid'"):
        audioset.read(AUDIOSET, root)


def test_of_several_files_one_with_the_start_in_its_name_is_used(make):
    files = ["b/--PJHxphWEs_30.wav", "a/--PJHxphWEs_30_40.wav", "a/--PJHxphWEs.wav", "a/--PJHxphWEs_30.mp4"]
    files += ["--PJHxphWEs_40.wav", "_-aE2O5G5WE.webm", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav"]
    manifest = audioset.read(AUDIOSET, make(files))
    assert manifest.problems == []
    assert [Path(row.path).name for row in manifest.rows] == [
        "--PJHxphWEs_30_40.wav", "_-aE2O5G5WE.wav", "Y-4gqARaEJE.wav",
    ]  # fmt: skip


def test_videos_are_found_beside_the_sounds_or_in_their_place(make):
    files = ["a/--PJHxphWEs_30.wav", "b/--PJHxphWEs_30.mp4", "_-aE2O5G5WE.webm", "Y-4gqARaEJE.wav"]
    manifest = audioset.read(AUDIOSET, make([*files, "b/--PJHxphWEs.mkv"]))
    assert manifest.problems == []
    assert [(Path(row.path).name, row.video and Path(row.video).name) for row in manifest.rows] == [
        ("--PJHxphWEs_30.wav", "--PJHxphWEs_30.mp4"),
        ("_-aE2O5G5WE.webm", "_-aE2O5G5WE.webm"),
        ("Y-4gqARaEJE.wav", None),
    ]


def test_lists_and_both_splits_are_required(make, tmp_path):
    with pytest.raises(MissingError, match=r"balanced_train_segments\.csv"):
        audioset.read(AUDIOSET, tmp_path)
    root = make([])
    with pytest.raises(MissingError, match=r"unbalanced_train_segments\.csv"):
        audioset.read(Data(corpus="audioset", subset="full"), root)
    with pytest.raises(MissingError, match=r"line 3: missing"):
        audioset.read(AUDIOSET, root)
    make(["--PJHxphWEs.wav"])
    with pytest.raises(MissingError, match=r"'eval'.* train"):
        audioset.read(AUDIOSET, root)
    for content in (b"\xff\xfe\x00", b'a, "b'):
        (root / "eval_segments.csv").write_bytes(content)
        with pytest.raises(UsageError, match=r"eval_segments\.csv"):
            audioset.read(AUDIOSET, root)


def test_the_official_lists_are_read_completely(audioset_dir, tmp_path):
    for name in ("balanced_train_segments.csv", "eval_segments.csv"):
        (tmp_path / name).symlink_to(audioset_dir / name)
    for name in ("Y--PJHxphWEs.wav", "zzbTaK7CXJY_30_40.wav"):
        (tmp_path / name).touch()
    manifest = audioset.read(AUDIOSET, tmp_path)
    assert [(row.clip_id, row.split) for row in manifest.rows] == [
        ("--PJHxphWEs", "train"), ("zzbTaK7CXJY", "eval"),
    ]  # fmt: skip
    assert len(manifest.problems) == 22_160 + 20_371 - 2
    assert all(problem.reason.startswith("missing") for problem in manifest.problems)


def prepared(out, root):
    clips = prepared_store(out, root, Data(corpus="audioset", duration_s=0.84))
    return clips, pd.read_csv(out / "quarantine.csv", keep_default_na=False)


def test_an_incomplete_copy_is_counted(audioset_dir, tmp_path, write_wav):
    """7 % of the files are missing and 1 % damaged: they are counted, listed with a reason, not replaced."""
    rng, root = np.random.default_rng(0), tmp_path / "audioset"
    root.mkdir()
    lost = {}
    for name, count in (("balanced_train_segments", 100), ("eval_segments", 30)):
        lines = (audioset_dir / f"{name}.csv").read_text().splitlines()
        lines = [line for line in lines if not line.startswith("#")][:count]
        (root / f"{name}.csv").write_text("\n".join([*lines, ""]))
        clips = [line.split(",")[0] for line in lines]
        lost[name] = missing, broken = set(clips[3::14]), set(clips[::100])
        for clip in clips:
            if clip not in missing:
                path = write_wav(f"audioset/audio/{name}/Y{clip}.wav", rng.uniform(-0.1, 0.1, 8000), 8000)
                if clip in broken:
                    path.write_bytes(path.read_bytes()[:5000])
    clips, table = prepared(tmp_path / "store", root)
    for name, split, count in (("balanced_train_segments", "train", 100), ("eval_segments", "eval", 30)):
        missing, broken = lost[name]
        assert (len(missing), len(broken)) == (count * 7 // 100, 1)
        found, kept = count - len(missing), count - len(missing) - len(broken)
        assert clips.meta.counts[split] == {"expected": count, "found": found, "decoded": kept, "kept": kept}
        listed = table[table["path"].str.contains(name)]
        assert set(listed["clip_id"]) == missing | broken
        assert set(listed["clip_id"][listed["reason"].str.startswith("missing")]) == missing
        assert set(listed["clip_id"][listed["reason"].str.startswith("truncated")]) == broken
    assert len(clips.meta.labels) == 527 and (clips.targets().sum(axis=1) > 0).all()
    verify(clips.path)


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
    clips, table = prepared(tmp_path / "store", root)
    assert list(table["clip_id"]) == ["abcdefghij2"]
    assert table["reason"][0].startswith("start 40 s")
    assert clips.meta.counts["train"] == {"expected": 4, "found": 4, "decoded": 3, "kept": 3}
    rows = {row.clip_id: row for row in audioset.read(AUDIOSET, root).rows}
    starts = {f"abcdefghij{k}": start for k, start in enumerate((15.0, 0.0, 40.0, 0.0))}
    assert {name: row.start_s for name, row in rows.items()} == starts | {"Y-4gqARaEJE": 110.0}
    for clip in clips:
        sound = sounds.get(clip.clip_id, cut)[round(1000 * clip.start_s) :][:840]
        assert np.corrcoef(sound, clip.audio()[::16])[0, 1] > 0.9
