"""AST against transformers."""

import shutil

import numpy as np
import pytest
import torch
from fakes import noise, set_config
from safetensors.torch import load_file, save_file

from ajbench import features
from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.features.extractor import LazyExtractor


@pytest.mark.parametrize("seconds", [3.0, 10.24, 12.0])
def test_embeddings_and_logits_are_those_of_transformers(ast_folder, seconds):
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    extractor = features.load("ast", ast_folder)
    wav = noise(seconds, 16_000)
    inputs = ASTFeatureExtractor()(list(wav), sampling_rate=16_000, return_tensors="pt")
    model = ASTForAudioClassification.from_pretrained(ast_folder).eval()
    with torch.no_grad():
        logits = model(**inputs).logits.numpy()
        pooled = model.audio_spectrogram_transformer(**inputs).pooler_output.numpy()
    found = extractor(wav)
    assert found[0] == pytest.approx(pooled, abs=5e-3) and found[1] == pytest.approx(logits, abs=5e-3)
    assert pooled.std() > 0.3 and logits.std() > 0.1 and np.abs(logits[0] - logits[1]).max() > 0.02
    assert extractor.labels == tuple(f"sound {i}" for i in range(5)) and extractor.mids is None
    assert np.array_equal(extractor.features(wav), found[0])


def test_folders_of_something_else_are_refused(ast_folder, clap_folder, tmp_path):
    with pytest.raises(IntegrityError, match=str(clap_folder)):
        features.load("ast", clap_folder)
    with pytest.raises(MissingError, match=r"config.json"):
        LazyExtractor("ast", tmp_path)
    assert LazyExtractor("ast", ast_folder).weights_hash == weights.identity(ast_folder)
    for change in (
        {"max_length": 512},
        {"num_attention_heads": 7},
        {"id2label": {i: f"sound {i}" for i in range(4)}},
    ):
        folder = shutil.copytree(ast_folder, tmp_path / "other", dirs_exist_ok=True)
        set_config(folder, **change)
        with pytest.raises(IntegrityError, match=str(folder)):
            features.load("ast", folder)


def test_a_width_that_one_tensor_alone_has_is_refused_before_building(ast_folder, tmp_path):
    folder = shutil.copytree(ast_folder, tmp_path / "wide")
    tensors = load_file(folder / "model.safetensors")
    tensors["audio_spectrogram_transformer.embeddings.cls_token"] = torch.zeros(1, 1, 30_000)  # 20 GB a block
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(IntegrityError, match=f"{folder}.*has shape"):
        features.load("ast", folder)
