"""Sentence encoders against sentence-transformers' own modules."""

import json

import numpy as np
import pytest
import torch
from fakes import save_sentence_encoder
from safetensors.torch import load_file, save_file

from ajbench.captions.sentence_encoder import SentenceEncoder
from ajbench.core.errors import IntegrityError, MissingError, UsageError

TEXTS = ["rain", "", "a dog nearby", "clock, rain, dog " * 9, "Rain"]  # the fourth one is truncated


@pytest.mark.parametrize(
    ("kind", "how"),
    [("t5", {}), ("t5", {"bias": True, "normalised": False}), ("bert", {}), ("bert", {"normalised": False})],
)
def test_embeddings_are_those_of_sentence_transformers(kind, how, tmp_path):
    theirs = save_sentence_encoder(kind, tmp_path / "model", **how).encode(TEXTS)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    encoder = SentenceEncoder(tmp_path / "model", kind)
    ours = encoder(TEXTS)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.abs(ours[0] - ours[2]).max() > 1e-3
    np.testing.assert_allclose(encoder(TEXTS[:1]), ours[:1], atol=1e-6)  # alone as in a batch
    assert len(encoder([])) == 0


def test_the_hash_is_of_all_weights(tmp_path):
    folder = tmp_path / "model"
    save_sentence_encoder("t5", folder)
    before = SentenceEncoder(folder, "t5").model_hash
    dense = folder / "2_Dense" / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(dense).items()}, dense)
    assert SentenceEncoder(folder, "t5").model_hash != before


def test_case_is_lowered_where_the_model_says_so(tmp_path):
    folder = tmp_path / "model"
    save_sentence_encoder("t5", folder)
    different = SentenceEncoder(folder, "t5")(["Rain", "rain"])
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({"max_seq_length": 12, "do_lower_case": True}))
    same = SentenceEncoder(folder, "t5")(["Rain", "rain"])
    assert np.abs(different[0] - different[1]).max() > 1e-3 and (same[0] == same[1]).all()


@pytest.mark.parametrize(
    ("how", "kind", "file"),
    [
        ({"pooling": "cls"}, "t5", "1_Pooling"),
        ({"activation": torch.nn.Tanh}, "t5", "2_Dense"),
        ({}, "bert", "config.json"),
    ],
)
def test_other_models_are_refused(how, kind, file, tmp_path):
    save_sentence_encoder("t5", tmp_path / "model", **how)
    with pytest.raises(UsageError, match=file):
        SentenceEncoder(tmp_path / "model", kind)


@pytest.mark.parametrize(
    "file", ["modules.json", "config.json", "model.safetensors", "2_Dense/model.safetensors"]
)
def test_missing_and_damaged_files_are_named(file, tmp_path):
    folder = tmp_path / "model"
    save_sentence_encoder("t5", folder)
    path = folder / file
    if path.suffix == ".json":
        path.write_text("{")
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(IntegrityError, match="model"):
        SentenceEncoder(folder, "t5")
    for text in ("[1]", "3", "null") if path.suffix == ".json" else ():
        path.write_text(text)
        with pytest.raises(IntegrityError, match="damaged"):
            SentenceEncoder(folder, "t5")
    path.unlink()
    with pytest.raises(MissingError, match="model"):
        SentenceEncoder(folder, "t5")


def test_a_linear_layer_without_numbers_is_refused(tmp_path):
    save_sentence_encoder("t5", tmp_path / "model")
    save_file({"linear.weight": torch.zeros(10**9, 0)}, tmp_path / "model" / "2_Dense" / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"2_Dense.*shape \(1000000000, 0\)"):
        SentenceEncoder(tmp_path / "model", "t5")
