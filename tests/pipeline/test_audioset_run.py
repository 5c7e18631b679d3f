"""From AudioSet's lists and audio files, some missing and some damaged, to Table A11."""

import csv
import json
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.data.store import ClipStore

TRAIN, EVAL, RATE = 100, 40, 16_000
SMALL = [
    *("codec.name=tiny", "data.duration_s=1.68", "generator.preset=tiny", "generator.init=null"),
    *("generator.text_encoder=minilm", "generator.encoder_mask=true", "generator.max_tokens=16"),
    *("generator.train_steps=3", "generator.warmup_steps=1", "generator.batch_size=2"),
    *("invert.train_steps=2", "invert.batch_size=2"),
    *("synth.plan=per-clip", "synth.n=16", "synth.sampler=ddim", "synth.sampler_steps=5"),
    *("synth.strength=0.2", "synth.guidance=1", "synth.micro_batch=4", "synth.shard_size=8"),
    *("classifier.name=taltrans-small", "classifier.epochs=1", "classifier.warmup_steps=1"),
    *("classifier.batch_size=16", "classifier.lr=1e-3", "evaluate.bootstrap=100", "evaluate.seeds=[0]"),
    *("evaluate.models=[{name: taltrans-small, aug: mx+sp}]", "classifier.specaug_time=16"),
    *("evaluate.doses=[8, 16]", "evaluate.controls=[match_steps, through_codec]"),
]


def segments(path, n):
    """Return the comment lines and the first n segments of an official list."""
    lines = path.read_text().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    return [*comments, *[line for line in lines if not line.startswith("#")][:n]]


@pytest.fixture(scope="module")
def audioset(tmp_path_factory, audioset_dir):
    """The first segments of the real lists; every 14th clip missing, one of each list broken."""
    root = tmp_path_factory.mktemp("audioset")
    (root / "audio").mkdir()
    rng = np.random.default_rng(0)
    for name, n in (("balanced_train_segments.csv", TRAIN), ("eval_segments.csv", EVAL)):
        lines = segments(audioset_dir / name, n)
        (root / name).write_text("\n".join(lines) + "\n")
        rows = csv.reader((line for line in lines if line[0] != "#"), skipinitialspace=True)
        for i, (youtube_id, start, *_) in enumerate(rows):
            path = root / "audio" / f"{youtube_id}_{float(start):.0f}.wav"
            if i % 14 == 5:
                continue
            t = np.arange(2 * RATE) / RATE
            tone = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 4000) * t) + 0.05 * rng.normal(size=len(t))
            soundfile.write(path, tone, RATE)
            if i == 20:
                path.write_bytes(path.read_bytes()[:1000])
    return root


def run(*arguments):
    found = CliRunner().invoke(app, [*arguments, *SMALL])
    assert found.exit_code == 0, (found.stderr, found.exception)
    return found


@pytest.fixture(scope="module")
def work(audioset, tmp_path_factory):
    """A folder of outputs with the store of `audioset`."""
    folder = tmp_path_factory.mktemp("work")
    run("prepare", "--recipe", "as20k-self", "--data", str(audioset), "--work", str(folder))
    return folder


def in_shards_alone(audioset, root):
    """Write shards as the hub has them, from files and labels of `audioset`, and no lists."""
    for name, short in (("balanced_train", "bal_train"), ("eval", "eval")):
        (root / "data" / short).mkdir(parents=True)
        with (audioset / f"{name}_segments.csv").open() as file:
            lines = csv.reader((line for line in file if line[0] != "#"), skipinitialspace=True)
            labels = {cells[0]: cells[3].split(",") for cells in lines}
        files = {path.stem[:11]: path for path in (audioset / "audio").iterdir()}
        rows = [
            {
                "video_id": one,
                "audio": {"bytes": files[one].read_bytes(), "path": f"{one}.wav"},
                "labels": mids,
            }
            for one, mids in labels.items()
            if one in files
        ]
        for k in range(2):
            table = pa.Table.from_pylist(rows[k * len(rows) // 2 : (k + 1) * len(rows) // 2])
            pq.write_table(table, root / "data" / short / f"{k:02d}.parquet", row_group_size=30)


def in_parquet(audioset, root):
    """Write shards as the hub has them, from lists and files of `audioset`."""
    for name in ("balanced_train", "eval"):
        shutil.copy(audioset / f"{name}_segments.csv", root)
    files = sorted((audioset / "audio").iterdir())
    for k, name in enumerate(("bal_train", "eval")):
        (root / "data" / name).mkdir(parents=True)
        rows = [
            {
                "video_id": path.stem[:11],
                "audio": {"bytes": path.read_bytes(), "path": f"{path.stem[:11]}.wav"},
            }
            for path in files[k::2]
        ]
        pq.write_table(pa.Table.from_pylist(rows), root / "data" / name / "00.parquet", row_group_size=30)


def in_tars(audioset, root):
    """Write WebDataset tars, from lists and files of `audioset`."""
    for name in ("balanced_train", "eval"):
        shutil.copy(audioset / f"{name}_segments.csv", root)
    files = sorted((audioset / "audio").iterdir())
    for k in range(3):
        with tarfile.open(root / f"{k:05d}.tar", "w") as file:
            for path in files[k::3]:
                file.add(path, f"{path.stem[:11]}{path.suffix}")


@pytest.mark.parametrize("write", [in_parquet, in_tars, in_shards_alone])
def test_archives_give_the_same_store_as_files(audioset, work, tmp_path, write):
    root, own = tmp_path / "archives", tmp_path / "work"
    root.mkdir()
    write(audioset, root)
    run("prepare", "--recipe", "as20k-self", "--data", str(root), "--work", str(own))
    files, archives = (ClipStore.open(next(one.glob("as20k-self/prepare-*"))) for one in (work, own))
    assert archives.clip_ids == files.clip_ids
    assert archives.column("labels") == files.column("labels")
    assert archives.column("recording") == files.column("recording")
    # Shards do not say which clips they lack.
    counts = {split: {**of, "expected": of["found"]} for split, of in files.meta.counts.items()}
    assert archives.meta.counts == (counts if write is in_shards_alone else files.meta.counts)
    every = range(len(files))
    assert np.array_equal(archives.codes(every), files.codes(every))
    assert np.array_equal(archives.audio(every), files.audio(every))
    assert archives.meta.whitening == files.meta.whitening


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("no_workers")
def test_from_the_official_lists_to_table_a11(audioset, work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    shutil.copytree(work, "work")
    data = ("--data", str(audioset))
    (store,) = tmp_path.glob("work/as20k-self/prepare-*/store.json")
    meta = json.loads(store.read_text())
    assert len(meta["labels"]) == 527
    assert meta["counts"] == {
        "train": {"expected": TRAIN, "found": 93, "decoded": 92, "kept": 92},
        "eval": {"expected": EVAL, "found": 37, "decoded": 36, "kept": 36},
    }
    for stage in ("train-gen", "invert", "synth"):
        run(stage, "--recipe", "as20k-self", *data)
    run("train-cls", "--recipe", "as20k-self+8G", *data)
    rows = json.loads(run("eval-cls", "--recipe", "as20k-self+8G", "--json", *data).stdout)
    # No real clips alone to compare with.
    assert {row["metric"] for row in rows} == {"map", "auc", "dprime", "macro_f1", "classes"}

    cells = json.loads(run("run", "tables/a11", "--base", "as20k-self", "--dry-run", "--json", *data).stdout)
    assert [(c["what"].split(", ")[1], c["steps"]) for c in cells["cells"]] == [
        ("as20k-self", 6),  # 93 clips there, batches of 16
        ("as20k-selfG", 1),
        ("as20k-self+8G", 7),
        ("as20k-self+16G", 7),
        ("as20k-self mix.match_steps=16", 7),
        ("as20k-self data.real_through_codec=true", 6),
    ]
    assert [c["state"] for c in cells["cells"]].count("done") == 1  # the one that train-cls trained
    assert all(c["seconds"] > 0 and c["disk_mb"] > 0 for c in cells["cells"])
    run("run", "tables/a11", "--base", "as20k-self", "--cell", "2", *data)
    again = run("run", "tables/a11", "--base", "as20k-self", "--cell", "2", *data)
    assert "nothing to do" in again.stderr
    document = json.loads(run("run", "tables/a11", "--base", "as20k-self", "--json", *data).stdout)
    assert not [what for what in document["ran"] if "as20k-selfG" in what or "eval-gen" in what]

    out = tmp_path / "results" / "as20k-self"
    (measured,) = (line for line in table(out / "table_a11.csv") if line["source"] == "measured")
    counted = [measured[f"train_{name}"] for name in ("expected", "found", "decoded", "kept")]
    assert counted == ["100", "93", "92", "92"]
    for column in ("+8G", "as20k-self (steps of +16G)", "as20k-self (decoded)"):
        assert float(measured[f"{column}_delta_low"]) <= float(measured[f"{column}_delta_high"])
    text = (out / "table_a11.md").read_text()
    assert "train 92 of 100: 7 missing, 1 broken" in text and "eval 36 of 40: 3 missing, 1 broken" in text
    classes = table(out / "table_a11_classes.csv")
    assert len(classes) == 527
    for line in classes:
        assert (line["+8G_gain"] == "") == (line["eval_clips"] == "0")
    assert run("run", "tables/a11", "--base", "as20k-self", *data).stderr.count("nothing to do") == 1
