"""Text encoders, tables of captions, codecs and answers of language models that a stranger gives."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import hostile_folders
import pyarrow as pa
import pyarrow.parquet as pq
from hostile_folders import Arguments, odd_json, own_work

from ajbench.codec.tiny import WEIGHTS
from ajbench.core.files import checksum

SERVED_S = 60
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "A bell rings."}, "finish_reason": "stop"}]
}
ODD_ANSWERS = (
    b"",
    b"[]",
    b"null",
    b"\xff\xfe" * 100,
    b"[" * 100_000,
    b'{"choices": []}',
    b'{"choices": [{"message": {"content": null}}]}',
    b'{"choices": {"a": 1}}',
    b'{"choices": [{"message": {"content": [[1]]}, "finish_reason": 3}]}',
    json.dumps({"choices": [{"message": {"content": "\x1b[2J\x00\u202e" * 1000}}]}).encode(),
    json.dumps({"choices": [{"message": {"content": "=1+1|<script>,\n\n" * 9}}]}).encode(),
    json.dumps({"choices": [{"message": {"content": "x" * 20_000_000}}]}).encode(),
    b'{"choices": [{"message": {"content": ' + b"9" * 10_000 + b"}}]}",
)


def trains(folder: Path, *overrides: str) -> Arguments:
    """Return a command line that trains a generator."""
    recipe = str(hostile_folders.GROUND / "r.yaml")
    return ["train-gen", "--recipe", recipe, "--work", str(own_work(folder)), *overrides]


def _encoder(folder: Path) -> Path:
    """Write a small random T5 with its tokenizer, as the hub has them; return its folder."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz,<>-_"]
    tokenizer = T5TokenizerFast(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)], extra_ids=4)
    size = {"d_model": 20, "d_kv": 5, "d_ff": 32, "num_layers": 1, "num_heads": 4}
    T5EncoderModel(T5Config(vocab_size=len(tokenizer), **size)).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return folder / "encoder"


def encoder(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A text encoder whose configuration brings code or huge sizes."""
    place = _encoder(folder)
    tree = json.loads((place / "config.json").read_text())
    if harm:
        tree |= {"model_type": rng.choice(("t5", "t5", "clip", "clap", "bert"))}
        tree |= rng.choice(
            (
                {"auto_map": {"AutoModel": "m.M"}},
                {"num_layers": 10**6},
                {"num_hidden_layers": 10**6},
                {"d_model": 10**12},
                {},
                {"model_type": ["t5"]},
                {"vocab_size": -1},
                {"hidden_size": None},
                {"torch_dtype": "no"},
            )
        )
        (place / "m.py").write_text("open('ran', 'w')\n")
    (place / "config.json").write_text(json.dumps(tree))
    return trains(folder, f"generator.text_encoder={place}", "generator.encoder_mask=true")


def tokenizer(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A text encoder one of whose tokenizer's files is changed."""
    place = _encoder(folder)
    if harm:
        names = [name for name in ("tokenizer.json", "tokenizer_config.json") if (place / name).exists()]
        odd_json(place / rng.choice(names), rng)
    return trains(folder, f"generator.text_encoder={place}", "generator.encoder_mask=true")


def captions(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A table of captions to train on, with an odd document or chunk."""
    place = Path(shutil.copytree(hostile_folders.GROUND / "captions", folder / "captions"))
    part, info = place / "part-00000.parquet", place / "_captions.json"
    kind = rng.choice(("document", "bits", "lost", "types", "texts", "bomb")) if harm else ""
    if kind == "document":
        odd_json(info, rng)
    elif kind == "bits":
        data = bytearray(part.read_bytes())
        for _ in range(8):
            data[rng.randrange(len(data))] ^= 255
        part.write_bytes(bytes(data))
    elif kind:
        table = pq.read_table(part)
        n = table.num_rows
        if kind == "lost":
            table = table.drop_columns([rng.choice(("clip_id", "text", "kind"))])
        elif kind == "types":
            table = table.set_column(2, "text", pa.array(range(n)))
        elif kind == "texts":
            table = table.set_column(2, "text", pa.array(["<aj-dog>\x00" * 5000] * n))
        else:
            table = table.set_column(2, "text", pa.array(["x" * 4_000_000] * n))
        pq.write_table(table, part, compression="zstd")
    if harm and kind != "document":
        tree = json.loads(info.read_text())
        tree["parts"][0]["xxh3"] = checksum(part)
        info.write_text(json.dumps(tree))
    return trains(folder, f"generator.captions={place}")


def codec(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A file of a tiny codec with another header or other tensors."""
    data, path = WEIGHTS.read_bytes(), folder / "codec.safetensors"
    size = int.from_bytes(data[:8], "little")
    if harm:
        kind = rng.choice(("configuration", "tensor", "length", "cut", "bytes"))
        tree = json.loads(data[8 : 8 + size])
        if kind == "configuration":
            config = json.loads(tree["__metadata__"]["config"])
            config[rng.choice(sorted(config))] = rng.choice(hostile_folders.ODD)
            tree["__metadata__"]["config"] = json.dumps(config)
        elif kind == "tensor":
            tensor = tree[rng.choice(sorted(tree.keys() - {"__metadata__"}))]
            tensor |= rng.choice(({"shape": [2**40]}, {"dtype": "F64"}, {"data_offsets": [0, 2**50]}))
        header = json.dumps(tree).encode()
        if kind == "length":
            data = (2**62).to_bytes(8, "little") + data[8:]
        elif kind == "cut":
            data = data[: rng.randrange(len(data))]
        elif kind == "bytes":
            data = rng.randbytes(5000)
        else:
            data = len(header).to_bytes(8, "little") + header + data[8 + size :]
    path.write_bytes(data)
    recipe = str(hostile_folders.GROUND / "r.yaml")
    return ["prepare", "--recipe", recipe, "--work", str(folder / "w"), f"codec.name={path}"]


def answers(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """A server of a language model that answers with something else."""
    answer = rng.choice(ODD_ANSWERS) if harm else json.dumps(ANSWER).encode()
    url = f"http://127.0.0.1:{serve(answer)}/v1"
    store = str(hostile_folders.made("prepare"))
    return [
        *("caption", "--store", store, "--out", str(folder / "captions"), "--backend", "openai"),
        *("--url", url, "--model", "m", "--retries", "1", "--timeout-s", "5"),
    ]


def serve(answer: bytes) -> int:
    """Start a process that answers every request with these bytes, for a minute; return its port.

    Not a thread of this process, whose children are forked.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # the client has hung up
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    if os.fork() == 0:
        signal.alarm(SERVED_S)
        server.serve_forever()
    server.socket.close()
    return int(server.server_address[1])


KINDS: dict[str, Callable[..., Arguments]] = {
    "text encoder: config.json": encoder,
    "text encoder: tokenizer": tokenizer,
    "captions: a table to train on": captions,
    "codec: a file": codec,
    "language model: answers": answers,
}
