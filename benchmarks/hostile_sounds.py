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


def sound(folder: Path, rng: random.Random) -> Arguments:
    """Sounds whose headers lie, or that are something else."""
    for path in corpus(folder, rng):
        if rng.random() < 0.4:
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


def odd_table(folder: Path, rng: random.Random) -> Arguments:
    """A table with odd cells, or in an odd form."""
    corpus(folder, rng)
    rows = table(folder, rng)
    path = folder / "clips" / "clips.csv"
    kind = rng.choice(
        ("csv", "csv", "csv", "jsonl", "parquet", "wide", "bytes", "one line", "quote", "nested")
    )
    if kind in ("jsonl", "nested", "parquet", "wide", "bytes", "one line", "quote"):
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
        if rng.random() < 0.5:
            data = bytearray(path.read_bytes())
            for _ in range(8):
                data[rng.randrange(len(data))] ^= 255
            path.write_bytes(bytes(data))
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


def odd_parquet(folder: Path, rng: random.Random) -> Arguments:
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
    content = [as_bytes(wave(rng)) for _ in names]
    content[5] = rng.choice((flac_declaring(wave(rng, channels=8), 2**36 - 1), b"", rng.randbytes(99)))
    if rng.random() < 0.5:
        path = folder / "clips" / "shard.parquet"
        labels = rng.choice(([["dog"], ["cat"]] * 4, [[2**40]] * 8, ["x"] * 8, [None] * 8))
        sounds = [
            {"bytes": one, "path": name.encode(errors="replace").decode()}
            for one, name in zip(content, names, strict=True)
        ]
        columns = {"audio": sounds, "labels": labels, "video_id": ["=1+1"] * 8}
        pq.write_table(pa.table(columns), path, compression=rng.choice(("zstd", "none")))
    else:
        path = folder / "clips" / "shard.tar"
        with tarfile.open(path, "w") as tar:
            for name, one in zip(names, content, strict=True):
                member = tarfile.TarInfo(name)
                member.size = len(one)
                tar.addfile(member, io.BytesIO(one))
                about = tarfile.TarInfo(str(Path(name).with_suffix(".json")) if len(name) < 200 else "z.json")
                text = rng.choice(
                    (
                        b'{"labels": ["dog"]}',
                        b'{"label": "cat"}',
                        b"[" * 50_000,
                        b"{",
                        b'{"labels": {"a": 1}}',
                    )
                )
                about.size = len(text)
                tar.addfile(about, io.BytesIO(text))
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
                member = tarfile.TarInfo(f"link{kind.decode()}.wav")
                member.type, member.linkname = kind, "/etc/passwd"
                tar.addfile(member)
        if rng.random() < 0.3:
            path.write_bytes(path.read_bytes()[: rng.randrange(20_000)])
    return reads_data(rng, rng.choice((str(path), "clips")))


def odd_names(folder: Path, rng: random.Random) -> Arguments:
    """Classes of strange names in a folder or a table."""
    labels = rng.sample(LABELS, 3)
    paths = corpus(folder, rng, tuple(labels))
    with (folder / "clips" / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["path", "labels"])
        out.writerows([[path.name, labels[k % 3]] for k, path in enumerate(paths)])
    return reads_data(rng, "clips/clips.csv")


def odd_folder(folder: Path, rng: random.Random) -> Arguments:
    """Class folders with links in circles, pipes and names that are not UTF-8."""
    corpus(folder, rng)
    clips = folder / "clips"
    for label in ("dog", "cat"):
        (clips / label).mkdir()
        for path in sorted(clips.glob("*.wav"))[:6]:
            path.rename(clips / label / path.name)
    for _ in range(3):
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
    return rng.choice(
        (
            ["run", "--data", "clips", "--dry-run"],
            ["prepare", "--data", "clips", "--work", "w"],
            [*EVAL_GEN],
            ["train-codec", "clips", "--steps", "1"],
        )
    )


def odd_annotations(folder: Path, rng: random.Random) -> Arguments:
    """Tables of labels, captions and pairs with odd cells."""
    corpus(folder, rng)
    option = rng.choice(("--labels", "--captions", "--pairs"))
    columns = {"--labels": "clip,labels", "--captions": "clip,caption", "--pairs": "gen,ref"}[option]
    lines = [columns] + [f"{k},{rng.choice(CELLS)!r}" for k in range(12)]
    text = rng.choice(
        (
            "\n".join(lines),
            columns + "\n" + "\0" * 50,
            columns + "," + ",".join(f"c{n}" for n in range(100_000)),
            '"' + "x" * 10**6,
            "",
            "\n" * 10**5,
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


def odd_sheet(folder: Path, rng: random.Random) -> Arguments:
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
    return ["score-listening", "sheet.json"]


KINDS: dict[str, Callable[[Path, random.Random], Arguments]] = {
    "sound: odd content": sound,
    "table: odd cells": odd_table,
    "archive: odd members": odd_parquet,
    "names: classes": odd_names,
    "folder: links and names": odd_folder,
    "annotations: odd tables": odd_annotations,
    "listening: odd sheets": odd_sheet,
}
