"""Stores, classifiers, generators and encoders with one thing changed, sealed again."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile_sounds
import numpy as np
import pyarrow as pa
import xxhash
from hostile_special import special

from ajbench.core.files import checksum
from ajbench.core.sealed_json import SEAL, sealed

Arguments = list[str]
ODD: tuple[Any, ...] = (
    None,
    "text",
    -1,
    0,
    2**60,
    1e300,
    [],
    {},
    [1, "a", None],
    True,
    [[[[]]]],
    "x" * 10**5,
    "=1+1",
)
GROUND = Path()  # set by `hostile.make_ground`


def made(name: str) -> Path:
    """Return the folder that a stage of the ground has written."""
    return next(GROUND.glob(f"work/ground/{name}-*"))


def own_work(folder: Path) -> Path:
    """Return a work folder in which the store, generator and tokens of the ground are finished."""
    place = folder / "w" / "ground"
    place.mkdir(parents=True)
    for name in ("prepare", "train-gen", "invert"):
        for path in GROUND.glob(f"work/ground/{name}-*"):
            (place / path.name).symlink_to(path)
    return folder / "w"


def copy(name: str, folder: Path) -> Path:
    """Copy the folder of a stage into `folder`."""
    return Path(shutil.copytree(made(name), folder / name, ignore=shutil.ignore_patterns("checkpoints")))


def odd_json(path: Path, rng: random.Random) -> None:
    """Change one value of a JSON file, the whole of it, or its type."""
    kind = rng.choice(("value", "value", "value", "deep", "lost", "more", "nested", "list", "bytes", "empty"))
    if kind == "nested":
        path.write_text('{"a":' * 50_000)
    elif kind == "list":
        path.write_text("[]")
    elif kind == "bytes":
        path.write_bytes(rng.randbytes(300))
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        tree = json.loads(path.read_text())
        key = rng.choice(sorted(tree))
        inside = tree[key]
        if kind == "deep" and isinstance(inside, dict) and inside:
            inside[rng.choice(sorted(inside))] = rng.choice(ODD)
        elif kind == "deep" and isinstance(inside, list) and inside:
            inside[rng.randrange(len(inside))] = rng.choice(ODD)
        elif kind == "lost":
            del tree[key]
        elif kind == "more":
            tree["__class__"] = "os.system"
        else:
            tree[key] = rng.choice(ODD)
        path.write_text(json.dumps(tree))


def seal(folder: Path, info: str) -> None:
    """Put the right checksums and seal into the file that lists them, where it still can be read."""
    path = folder / info
    try:
        tree = json.loads(path.read_text())
        with_seal = tree.pop(SEAL, None) is not None
        if isinstance(tree.get("xxh3"), dict):
            tree["xxh3"] = {name: checksum(folder / name) for name in tree["xxh3"]}
        elif info == "config.json":
            tree["xxh3"] = checksum(folder / "model.safetensors")
        elif info == "store.json":
            tree.pop("xxh3", None)
            for entry in tree["shards"]:
                entry["xxh3"] = checksum(folder / entry["file"])
            text = json.dumps(tree, sort_keys=True, ensure_ascii=False).encode()
            tree["xxh3"] = xxhash.xxh3_128_hexdigest(text)
        path.write_text(json.dumps(sealed(tree) if with_seal else tree))
    except (OSError, ValueError, AttributeError, KeyError, TypeError, UnicodeError, RecursionError):
        return


def reads_store(folder: Path, store: Path, rng: random.Random) -> Arguments:
    """Return a command line that reads a store."""
    name = str(store)
    return rng.choice(
        (
            ["verify", name],
            ["verify", name],
            [
                "eval-gen",
                "--gen",
                name,
                "--ref",
                name,
                "--metrics",
                "fad",
                "--bootstrap",
                "0",
                "--features",
                "tiny",
            ],
            [
                "audit",
                "--synth",
                name,
                "--train",
                name,
                "--eval",
                name,
                "--train-split",
                "train",
                "--eval-split",
                "eval",
            ],
            ["export", str(folder / "out"), "--clips", name],
            ["caption", "--store", name, "--out", str(folder / "captions"), "--backend", "template"],
        )
    )


def store_document(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A store whose store.json is changed."""
    store = copy("prepare", folder)
    if harm:
        odd_json(store / "store.json", rng)
    seal(store, "store.json")
    return reads_store(folder, store, rng)


def _column(kind: str, n: int) -> tuple[str, Any]:
    ends = np.arange(n + 1)
    if kind == "text":
        at = ends.astype(np.int32)
        column = pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(at), pa.py_buffer(b"a" * n)])
        at[-1] = 2**30
        return "clip_id", column
    if kind == "negative":
        at = ends.astype(np.int32)
        column = pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(at), pa.py_buffer(b"a" * n)])
        at[1] = -7
        return "recording", column
    if kind == "bytes":
        data = pa.py_buffer(b"\xff" * n)
        return "caption", pa.Array.from_buffers(
            pa.string(), n, [None, pa.py_buffer(ends.astype(np.int32)), data]
        )
    if kind == "sound":
        at = ends.astype(np.int64)
        column = pa.Array.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(at), pa.py_buffer(b"a" * n)])
        at[-1] = 2**40
        return "audio", column
    values: dict[str, tuple[str, Any]] = {
        "labels": ("label_ids", pa.array([[2**30]] * n, pa.list_(pa.int32()))),
        "lost": ("clip_id", pa.array([None] * n, pa.string())),
        "nan": ("start_s", pa.array([float("nan")] * n)),
        "links": ("audio", pa.array([None] * n, pa.large_binary())),
        "noise": ("audio", pa.array([b"fLaC" + bytes(range(256))] * n, pa.large_binary())),
        "names": ("clip_id", pa.array([f"../../{k}/=1+1<script>" for k in range(n)])),
        "twice": ("clip_id", pa.array(["a"] * n)),
        "folds": ("fold", pa.array([2**31 - 1] * n, pa.int32())),
        "long": ("clip_id", pa.array([f"{k}" * 3000 for k in range(n)])),
    }
    return values[kind]


def store_shard(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A store whose shard has an odd column."""
    store = copy("prepare", folder)
    if not harm:
        return reads_store(folder, store, rng)
    path = store / "part-00000.arrow"
    batch = pa.ipc.open_file(str(path)).get_batch(0)
    kinds = [
        "text",
        "negative",
        "bytes",
        "sound",
        "labels",
        "lost",
        "nan",
        "links",
        "noise",
        "names",
        "twice",
        "folds",
        "long",
        "codes",
        "bits",
        "compressed",
    ]
    kind, compression = rng.choice(kinds), None
    if kind == "bits":
        data = bytearray(path.read_bytes())
        for _ in range(20):
            data[rng.randrange(min(len(data), 20_000))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(data))
    else:
        if kind == "compressed":
            compression = "zstd"
        elif kind == "codes":
            width = batch.schema.field("codes").type.list_size
            values = pa.array(np.full(width * batch.num_rows, 65_535, np.uint16))
            name, column = "codes", pa.FixedSizeListArray.from_arrays(values, width)
        else:
            name, column = _column(kind, batch.num_rows)
        if kind != "compressed":
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, batch.schema.field(name), column)
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema, options=options) as out:
            out.write_batch(batch)
    seal(store, "store.json")
    return reads_store(folder, store, rng)


def special_file(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A pipe, a device or a link in place of a file."""

    def harmed(path: Path) -> None:
        if harm:
            path.unlink(missing_ok=True)
            special(path, rng)

    which = rng.choice(("store", "shard", "classifier", "weights", "generator", "unet", "table", "clip"))
    if which in ("store", "shard"):
        store = copy("prepare", folder)
        harmed(store / ("store.json" if which == "store" else "part-00000.arrow"))
        return reads_store(folder, store, rng)
    if which in ("classifier", "weights"):
        model = copy("train-cls", folder)
        harmed(model / ("config.json" if which == "classifier" else "model.safetensors"))
        return judged(model)
    if which in ("generator", "unet"):
        model = copy("train-gen", folder)
        harmed(model / ("generator.json" if which == "generator" else "unet/config.json"))
        return used(model, rng)
    paths = hostile_sounds.corpus(folder, rng)
    hostile_sounds.table(folder, rng, 0.0)
    harmed(paths[0] if which == "clip" else folder / "clips" / "clips.csv")
    if which == "clip":
        return [*hostile_sounds.EVAL_GEN]
    return ["run", "--data", "clips/clips.csv", "--dry-run"]


def judged(model: Path) -> Arguments:
    """Return a command line that starts from a classifier."""
    recipe, work = str(GROUND / "r.yaml"), str(own_work(model.parent))
    return ["train-cls", "--recipe", recipe, "--work", work, f"classifier.init={model}"]


def classifier(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A classifier whose config.json is changed."""
    model = copy("train-cls", folder)
    if harm:
        odd_json(model / "config.json", rng)
    seal(model, "config.json")
    return judged(model)


def used(model: Path, rng: random.Random) -> Arguments:
    """Return a command line that uses a generator."""
    recipe, given = str(GROUND / "r.yaml"), ("--generator", str(model))
    work = ("--work", str(own_work(model.parent)))
    return rng.choice(
        (
            ["synth", "--recipe", recipe, *given, *work],
            ["synth", "--recipe", recipe, *given, *work],
            ["run", recipe, *given, *work, "--dry-run"],
            ["synth", "--recipe", recipe, *given, *work, "--dry-run"],
        )
    )


def generator(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A generator one of whose documents is changed."""
    model = copy("train-gen", folder)
    name = rng.choice(
        ("generator.json", "unet/config.json", "scheduler/scheduler_config.json", "whitening.json")
    )
    if harm:
        odd_json(model / name, rng)
    seal(model, "generator.json")
    return used(model, rng)


KINDS: dict[str, Callable[..., Arguments]] = {
    "store: store.json": store_document,
    "store: shard": store_shard,
    "folder: no regular file": special_file,
    "classifier: config.json": classifier,
    "generator: a document": generator,
}
