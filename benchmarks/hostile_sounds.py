"""Sounds, tables, archives and names of classes that are not what they say."""

import csv
import io
import json
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from ajbench.evaluation.listening_sheets import FORMAT

Arguments = list[str]
LABELS = (
    "$\\frac{",
    "=1+1",
    "<script>alert(1)</script>",
    "../../x",
    "\\input{/etc/passwd}",
    "a\nb",
    "\u202egnp",
    "x" * 4000,
    "dog|cat",
    "@SUM(A1)",
    "-1",
    "NaN",
    "{{7*7}}",
    "%s%n",
    "\x1b[2J",
    "🎵",
    " ",
    "<aj-dog>",
)
CELLS = (
    "",
    "99999999999",
    "-1",
    "1e308",
    "nan",
    "inf",
    "x" * 5000,
    "../../etc/passwd",
    "/dev/zero",
    "\x00",
    "[1, 2",
    '{"a": 1}',
    "=cmd|' /C calc'!A0",
    "9" * 5000,
    "\ufeff",
    "a\nb",
    "/proc/self/mem",
    "~",
    "1;2;3",
)
COLUMNS = (
    "path",
    "labels",
    "split",
    "fold",
    "start_s",
    "duration_s",
    "clip_id",
    "caption",
    "video",
    "parent_id",
    "recording",
    "source",
)

SHORT_CODEC = ("--steps", "1", "--batch-size", "1", "--mini-clips", "0", "--work", "w")
RUN = """extends: mini
data: {corpus: table, duration_s: 0.42, eval_fold: null}
generator: {train_steps: 1, batch_size: 2, warmup_steps: 0}
invert: {train_steps: 1, batch_size: 2}
synth: {n: 4, sampler_steps: 2, shard_size: 2, micro_batch: 2, prompt: tokens}
classifier: {train_steps: 2, batch_size: 4, warmup_steps: 0, specaug_time: 16}
mix: {real: all}
evaluate:
  models: [{name: taltrans-small, aug: none}]
  doses: [2]
  controls: []
  pools: []
  seeds: [0]
  synthetic_only: false
  bootstrap: 100
  probes: {}
  primary: null
"""

# Both sets are the same folder, so that everything in it is read.
EVAL_GEN = (
    *("eval-gen", "--gen", "clips", "--ref", "clips", "--features", "tiny"),
    *("--bootstrap", "0", "--metrics", "fad", "--allow-partial"),
)


def wave(rng: random.Random, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    """Return noise, float32 [n, channels], at 16 kHz."""
    noise = np.random.default_rng(rng.getrandbits(32))
    return noise.normal(0, 0.1, (int(16_000 * seconds), channels)).astype(np.float32)


def as_bytes(samples: np.ndarray, kind: str = "WAV", rate: int = 16_000) -> bytes:
    """Return the content of a sound file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def flac_declaring(samples: np.ndarray, declared: int) -> bytes:
    """Return the content of a FLAC file whose header declares so many samples."""
    content = bytearray(as_bytes(samples, "FLAC"))
    head = int.from_bytes(content[21:26], "big") >> 36 << 36
    content[21:26] = (head | declared).to_bytes(5, "big")
    return bytes(content)


def corpus(
    folder: Path, rng: random.Random, labels: tuple[str, ...] = ("dog", "cat"), each: int = 6
) -> list[Path]:
    """Write a folder of sounds; return their paths."""
    (folder / "clips").mkdir()
    found = []
    for k in range(each * len(labels)):
        path = folder / "clips" / f"{k}.wav"
        path.write_bytes(as_bytes(wave(rng)))
        found.append(path)
    return found


def reads_data(rng: random.Random, data: str) -> Arguments:
    """Return a command line that reads a corpus."""
    return rng.choice(
        (
            ["run", "--data", data, "--dry-run"],
            ["run", "--data", data, "--dry-run"],
            ["prepare", "--data", data, "--work", "w"],
        )
    )


def sound(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Sounds whose headers lie, or that are something else."""
    for path in corpus(folder, rng):
        if harm and rng.random() < 0.4:
            suffix, content = rng.choice(
                (
                    (".flac", flac_declaring(wave(rng, channels=8), 2**36 - 1)),
                    (".flac", flac_declaring(wave(rng), 0)),
                    (".flac", flac_declaring(np.zeros((16_000 * 60, 8), np.float32), 2**36 - 1)),
                    (".wav", as_bytes(wave(rng), rate=2**31 - 1)),
                    (".wav", as_bytes(wave(rng))[:40] + b"\xff\xff\xff\x7f" + as_bytes(wave(rng))[44:]),
                    (".wav", rng.randbytes(2000)),
                    (".ogg", as_bytes(wave(rng), "OGG")[: rng.randrange(5000)]),
                    (".mp3", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + rng.randbytes(500)),
                    (".mp4", b"\x00\x00\x00\x18ftypmp42" + rng.randbytes(500)),
                    (".wav", b"#EXTM3U\nfile:///etc/passwd\n"),
                    (".wav", b"RF64" + b"\xff" * 300),
                )
            )
            path.unlink()
            path.with_suffix(suffix).write_bytes(content)
    if rng.random() < 0.5:
        return [*EVAL_GEN]
    table(folder, rng, 0.0)
    return reads_data(rng, "clips/clips.csv")


def table(folder: Path, rng: random.Random, share: float = 0.3) -> list[dict[str, str]]:
    """Write clips.csv beside the sounds, with odd cells."""
    rows = []
    for k, path in enumerate(sorted((folder / "clips").iterdir())):
        row = {"path": path.name, "labels": ("dog", "cat")[k % 2]}
        for name in COLUMNS:
            if rng.random() < share / 2:
                row[name] = rng.choice(CELLS)
        rows.append(row)
    with (folder / "clips" / "clips.csv").open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        used = [name for name in COLUMNS if any(name in row for row in rows)]
        out = csv.DictWriter(file, used, restval="")
        out.writeheader()
        out.writerows(rows)
    return rows


def odd_table(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A table with odd cells, or in an odd form."""
    corpus(folder, rng)
    rows = table(folder, rng, 0.3 * harm)
    path = folder / "clips" / "clips.csv"
    kinds = ("csv", "csv", "csv", "jsonl", "parquet", "wide", "bytes", "one line", "quote", "nested", "bomb")
    kind = rng.choice(kinds if harm else kinds[:5])
    if kind != "csv":
        path.unlink()
    if kind == "jsonl":
        path = path.with_suffix(".jsonl")
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "nested":
        path = path.with_suffix(".jsonl")
        path.write_text('{"path": ' + "[" * 100_000)
    elif kind == "parquet":
        path = path.with_suffix(".parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
        if harm and rng.random() < 0.5:
            data = bytearray(path.read_bytes())
            for _ in range(8):
                data[rng.randrange(len(data))] ^= 255
            path.write_bytes(bytes(data))
    elif kind == "bomb":
        path = path.with_suffix(".parquet")
        write_bomb(path)
    elif kind == "wide":
        names = [f"c{n}" for n in range(100_000)]
        path.write_text(",".join(("path", "labels", *names)) + "\n" + "0.wav,dog" + ",1" * 100_000 + "\n")
    elif kind == "bytes":
        path.write_bytes(b"path,labels\n" + rng.randbytes(3000))
    elif kind == "one line":
        path.write_text("path,labels\n" + "x" * 3_000_000)
    elif kind == "quote":
        path.write_text('path,labels\n"0.wav,dog\n' + "1.wav,cat\n" * 100_000)
    return reads_data(rng, str(path))


def write_bomb(path: Path, rows: int = 2_000_000, characters: int = 10_000) -> None:
    """Write a Parquet table of a few kB whose columns need 20 GB each."""
    index = pa.array(np.zeros(rows, np.int32))
    columns = {
        name: pa.DictionaryArray.from_arrays(index, pa.array([name[0] * characters]))
        for name in ("path", "labels")
    }
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)


def odd_parquet(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A Parquet shard or a tar of sounds, with members that lead elsewhere."""
    (folder / "clips").mkdir()
    names = [
        "a.wav",
        "../../b.wav",
        "/etc/c.wav",
        "d" * 300 + ".wav",
        "e\udcff.wav",
        "f.wav",
        "\n.wav",
        "x" * 90 + "." + "w" * 90,
    ]
    names = names if harm else [f"{k}.wav" for k in range(8)]
    content = [as_bytes(wave(rng)) for _ in names]
    content[5] = (
        content[5]
        if not harm
        else rng.choice((flac_declaring(wave(rng, channels=8), 2**36 - 1), b"", rng.randbytes(99)))
    )
    if rng.random() < 0.5:
        path = folder / "clips" / "shard.parquet"
        kinds = [["dog"], ["cat"]] * 4, [[2**40]] * 8, ["x"] * 8, [None] * 8
        labels = rng.choice(kinds if harm else kinds[:1])
        sounds = [
            {"bytes": one, "path": name.encode(errors="replace").decode()}
            for one, name in zip(content, names, strict=True)
        ]
        columns = {"audio": sounds, "labels": labels, "video_id": ["=1+1"] * 8}
        if not harm:
            columns["video_id"] = [f"v{k}" for k in range(8)]
        pq.write_table(pa.table(columns), path, compression=rng.choice(("zstd", "none")))
    else:
        path = folder / "clips" / "shard.tar"
        with tarfile.open(path, "w") as tar:
            for name, one in zip(names, content, strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(one)
                tar.addfile(member, io.BytesIO(one))
                about = tarfile.TarInfo(str(Path(name).with_suffix(".json")) if len(name) < 200 else "z.json")
                texts = (
                    b'{"labels": ["dog"]}',
                    b'{"label": "cat"}',
                    b"[" * 50_000,
                    b"{",
                    b'{"labels": {"a": 1}}',
                )
                text = rng.choice(texts) if harm else texts[int(name[0]) % 2]
                about.size = len(text)
                tar.addfile(about, io.BytesIO(text))
            links = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE
            for kind in links if harm else ():
                member = tarfile.TarInfo(f"link{kind.decode()}.wav")
                member.type, member.linkname = kind, "/etc/passwd"
                tar.addfile(member)
        if harm and rng.random() < 0.3:
            path.write_bytes(path.read_bytes()[: rng.randrange(20_000)])
    return reads_data(rng, rng.choice((str(path), "clips")))


def odd_names(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Classes of strange names in a table."""
    _write_classes(folder, rng, harm)
    return reads_data(rng, "clips/clips.csv")


def odd_names_of_a_run(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A whole run on classes of strange names, to its tables and its report."""
    _write_classes(folder, rng, harm)
    (folder / "r.yaml").write_text(RUN)
    return ["run", "r.yaml", "--data", "clips/clips.csv", "--work", "w", "--results", "r", "--jobs", "1"]


def _write_classes(folder: Path, rng: random.Random, harm: bool) -> None:
    """Write a folder of sounds of three classes and clips.csv, with splits, beside them."""
    labels = rng.sample(LABELS, 3) if harm else ["dog", "cat", "rain"]
    paths = corpus(folder, rng, tuple(labels))
    with (folder / "clips" / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "labels", "split"])
        splits = ("train", "eval")
        out.writerows([[path.name, labels[k % 3], splits[k // 3 % 2]] for k, path in enumerate(paths)])


def odd_folder(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Class folders with links in circles, pipes and names that are not UTF-8."""
    _write_folders(folder, rng, harm)
    return rng.choice(
        (
            ["run", "--data", "clips", "--dry-run"],
            ["prepare", "--data", "clips", "--work", "w"],
            [*EVAL_GEN],
        )
    )


def odd_folder_of_a_codec(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """The same folders, as sounds to train a codec on."""
    _write_folders(folder, rng, harm)
    return ["train-codec", "--sounds", "clips", *SHORT_CODEC]


def _write_folders(folder: Path, rng: random.Random, harm: bool) -> None:
    corpus(folder, rng)
    clips = folder / "clips"
    for label in ("dog", "cat"):
        (clips / label).mkdir()
        for path in sorted(clips.glob("*.wav"))[:6]:
            path.rename(clips / label / path.name)
    for _ in range(3 * harm):
        kind = rng.choice(("loop", "up", "bytes", "deep", "fifo", "zero", "long", "dangling"))
        if kind == "loop":
            (clips / "dog" / f"loop{rng.randrange(999)}").symlink_to(clips)
        elif kind == "up":
            (clips / f"up{rng.randrange(999)}").symlink_to("..")
        elif kind == "bytes":
            Path(os.fsdecode(os.fsencode(clips) + b"/cat/\xff\xfe%d.wav" % rng.randrange(99))).write_bytes(
                as_bytes(wave(rng))
            )
        elif kind == "deep":
            deep = clips / "cat" / "/".join(["d"] * 200)
            deep.mkdir(parents=True, exist_ok=True)
            (deep / "a.wav").write_bytes(as_bytes(wave(rng)))
        elif kind == "fifo":
            os.mkfifo(clips / "dog" / f"p{rng.randrange(999)}.wav")
        elif kind == "zero":
            (clips / "dog" / f"z{rng.randrange(999)}.wav").symlink_to("/dev/zero")
        elif kind == "long":
            (clips / ("l" * 250)).mkdir(exist_ok=True)
            (clips / ("l" * 250) / ("m" * 250 + ".wav")).write_bytes(as_bytes(wave(rng)))
        else:
            (clips / f"gone{rng.randrange(999)}.wav").symlink_to("/nowhere")


def odd_annotations(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Tables of labels, captions and pairs with odd cells."""
    corpus(folder, rng)
    option = rng.choice(("--labels", "--captions", "--pairs"))
    columns = {"--labels": "clip,labels", "--captions": "clip,caption", "--pairs": "gen,ref"}[option]
    lines = [columns] + [f"{k},{rng.choice(CELLS)!r}" for k in range(12)]
    good = {"--labels": "{0},dog", "--captions": "{0},a dog", "--pairs": "{0},{0}"}[option]
    plain = "\n".join([columns, *(good.format(k) for k in range(12))])
    text = (
        plain
        if not harm
        else rng.choice(
            (
                "\n".join(lines),
                columns + "\n" + "\0" * 50,
                columns + "," + ",".join(f"c{n}" for n in range(100_000)),
                '"' + "x" * 10**6,
                "",
                "\n" * 10**5,
            )
        )
    )
    (folder / "t.csv").write_text(text, errors="surrogateescape")
    return [
        "eval-gen",
        "--gen",
        "clips",
        "--ref",
        "clips",
        "--features",
        "tiny",
        "--bootstrap",
        "0",
        option,
        "t.csv",
    ]


def odd_sheet(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Sheets of a listening test that are none."""
    (folder / "sheet.json").write_text(
        rng.choice(
            (
                "{" * 50_000,
                '{"trials": ' + "[" * 50_000,
                "[]",
                '{"trials": 3}',
                '{"format": 1, "trials": [{"options": 1}]}',
                '{"format": 1e400}',
                "{}",
                "a,b\n1",
                '{"a": ' + "9" * 10_000 + "}",
            )
        )
    )
    if not harm:
        trial = {"sounds": [{"set": "real"}], "options": ["real", "generated"]}
        sheet = {"format": FORMAT, "recipe": "mini", "task": "single", "set": "", "seed": 1, "started": ""}
        sheet |= {"listener": "a", "trials": [trial | {"right": "real", "answer": "real"}] * 4}
        (folder / "sheet.json").write_text(json.dumps(sheet))
    return ["score-listening", "sheet.json"]


KINDS: dict[str, Callable[..., Arguments]] = {
    "sound: odd content": sound,
    "table: odd cells": odd_table,
    "archive: odd members": odd_parquet,
    "names: classes": odd_names,
    "names: classes of a run": odd_names_of_a_run,
    "folder: links and names": odd_folder,
    "folder: sounds of a codec": odd_folder_of_a_codec,
    "annotations: odd tables": odd_annotations,
    "listening: odd sheets": odd_sheet,
}
