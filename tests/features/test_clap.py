"""CLAP, AST, EnCodec and PaSST as features, against the libraries that they come from."""

import json

import numpy as np
import pytest
import small_text_encoders
import torch

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.registry import FEATURE_FILES
from ajbench.features import extractor as features
from ajbench.features import weights

PROMPTS = ["The sound of dog, rain", "a clock nearby", "rain"]


def noise(seconds, rate, clips=2, seed=0):
    rng = np.random.default_rng(seed)
    level = 0.02 * np.arange(1, clips + 1)[:, None]
    return (level * rng.normal(size=(clips, int(seconds * rate)))).astype(np.float32)


# CLAP


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    from transformers import ClapFeatureExtractor

    folder = small_text_encoders.save("clap", tmp_path_factory.mktemp("clap"))
    ClapFeatureExtractor(
        feature_size=8, truncation="rand_trunc", padding="repeatpad", frequency_min=50, max_length_s=1
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(clap_folder):
    return features.load("clap", clap_folder)


def unit(found):
    vectors = getattr(found, "pooler_output", found)
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def test_clap_gives_what_transformers_gives(clap, clap_folder):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(clap_folder).eval()
    wav = noise(0.3, 48_000)
    heard = ClapFeatureExtractor.from_pretrained(clap_folder)(
        list(wav), sampling_rate=48_000, return_tensors="pt"
    )
    words = AutoTokenizer.from_pretrained(clap_folder)(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        sound = unit(model.get_audio_features(**heard))
        text = unit(model.get_text_features(**words))
    found, logits = clap(wav)
    assert found == pytest.approx(sound, abs=1e-5) and logits.shape == (2, 0)
    assert clap.text(PROMPTS) == pytest.approx(text, abs=1e-5)
    assert found.dtype == clap.text(PROMPTS).dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3 and np.abs(text[0] - text[1]).max() > 1e-3


def test_clap_hears_its_first_seconds_the_same_every_time(clap):
    wav = noise(1.5, 48_000, clips=1)
    first, again, cut = clap(wav)[0], clap(wav)[0], clap(wav[:, :48_000])[0]
    assert np.array_equal(first, again) and np.array_equal(first, cut)
    assert (clap.sample_rate, clap.max_samples, clap.frames, clap.labels) == (48_000, 48_000, False, ())


def test_text_is_reached_before_and_after_loading(clap, clap_folder, monkeypatch):
    monkeypatch.setattr("ajbench.features.clap.PROMPTS", 2)
    late = features.LazyExtractor("clap", clap_folder)
    assert late.text(PROMPTS) == pytest.approx(clap.text(PROMPTS), abs=1e-5)
    assert late.weights_hash == weights.identity(clap_folder)


def test_clap_is_found_and_its_faults_are_told(clap_folder, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(
        MissingError, match=r"laion/clap-htsat-unfused is not in .*doctor --weights --download clap"
    ):
        features.LazyExtractor("clap")
    shutil.copytree(clap_folder, tmp_path / "clap")
    assert features.load("clap").text(["rain"]).shape == (1, 8)
    before = features.LazyExtractor("clap").weights_hash
    config = json.loads((tmp_path / "clap" / "config.json").read_text())
    config["audio_config"]["enable_fusion"] = True
    (tmp_path / "clap" / "config.json").write_text(json.dumps(config))
    assert features.LazyExtractor("clap").weights_hash != before
    with pytest.raises((UsageError, IntegrityError)):
        features.load("clap")
    (tmp_path / "clap" / "preprocessor_config.json").unlink()
    with pytest.raises(MissingError, match=r"preprocessor_config.json is not there"):
        features.load("clap")
    small_text_encoders.save("clip", tmp_path / "clip")
    with pytest.raises(UsageError, match="a model of kind 'clip"):
        features.load("clap", tmp_path / "clip")
    shutil.copytree(clap_folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match="not to be read"):
        features.load("clap", tmp_path / "pickled")


# AST


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory):
    from transformers import ASTConfig, ASTForAudioClassification

    folder = tmp_path_factory.mktemp("ast")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = ASTForAudioClassification(
            ASTConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                num_labels=5,
                id2label={i: f"sound {i}" for i in range(5)},
            )
        )
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("seconds", [3.0, 10.24, 12.0])
def test_ast_gives_what_transformers_gives(ast_folder, seconds):
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    extractor = features.load("ast", ast_folder)
    wav = noise(seconds, 16_000)
    heard = ASTFeatureExtractor()(list(wav), sampling_rate=16_000, return_tensors="pt")
    model = ASTForAudioClassification.from_pretrained(ast_folder).eval()
    with torch.no_grad():
        logits = model(**heard).logits.numpy()
        pooled = model.audio_spectrogram_transformer(**heard).pooler_output.numpy()
    found = extractor(wav)
    assert found[0] == pytest.approx(pooled, abs=5e-3) and found[1] == pytest.approx(logits, abs=5e-3)
    assert pooled.std() > 0.3 and logits.std() > 0.1 and np.abs(logits[0] - logits[1]).max() > 0.02
    assert extractor.labels == tuple(f"sound {i}" for i in range(5)) and extractor.mids is None
    assert np.array_equal(extractor.features(wav), found[0])


def test_ast_is_refused_where_it_is_something_else(ast_folder, tmp_path, clap_folder):
    with pytest.raises(IntegrityError, match=r"neither of a classifier of ajbench nor of transformers' AST"):
        features.load("ast", clap_folder)
    with pytest.raises(MissingError, match=r"config.json is missing; name a folder"):
        features.LazyExtractor("ast", tmp_path)
    assert features.LazyExtractor("ast", ast_folder).weights_hash == weights.identity(ast_folder)


# EnCodec


@pytest.fixture(scope="module")
def encodec_file(tmp_path_factory):
    import warnings

    from encodec import EncodecModel

    path = tmp_path_factory.mktemp("encodec") / "mine.th"
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = EncodecModel.encodec_model_24khz(pretrained=False).eval()
    torch.save(model.state_dict(), path)
    return model, path


def test_encodec_frames_are_the_encoders_before_the_quantiser(encodec_file):
    model, path = encodec_file
    extractor = features.load("encodec", path)  # the user's own: no hash to compare with
    wav = noise(0.5, 24_000)
    found, logits = extractor(wav)
    with torch.no_grad():  # as frechet-audio-distance takes it of a clip
        expected = [model.encoder(torch.tensor(clip)[None, None]).squeeze(0).numpy().T for clip in wav]
    assert found.shape == (2, 38, 128) and logits.shape == (2, 0) and extractor.frames
    assert found == pytest.approx(np.stack(expected), abs=1e-6) and found.std() > 1e-4
    assert extractor(wav[:, : extractor.min_samples])[0].shape == (2, 19, 128)


def test_encodecs_published_weights_are_checked(encodec_file, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingError, match=r"EnCodec's weights are not on this machine"):
        features.LazyExtractor("encodec")
    with pytest.raises(MissingError, match="neither EnCodec's checkpoint nor a folder"):
        features.LazyExtractor("encodec", tmp_path)
    (tmp_path / "encodec_24khz-d7cc33bc.th").write_bytes(encodec_file[1].read_bytes())
    with pytest.raises(IntegrityError, match="SHA-256 begins with"):
        features.load("encodec")
    (tmp_path / "junk.th").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match="not a plain state dict"):
        features.load("encodec", tmp_path / "junk.th")


# PaSST


def test_passt_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"hear21passt is not installed; `pip install 'ajbench\[passt\]'`"):
        features.LazyExtractor("passt", tmp_path / FEATURE_FILES["passt"])


def test_passt_gives_what_its_package_gives(tmp_path):
    base = pytest.importorskip("hear21passt.base")
    from hear21passt.models.passt import get_model

    torch.manual_seed(0)
    network = get_model("passt_s_swa_p16_128_ap476", pretrained=False).eval()
    torch.nn.init.normal_(network.head[1].weight, std=0.1)
    path = tmp_path / FEATURE_FILES["passt"]
    torch.save(network.state_dict(), path)
    extractor = features.load("passt", path)
    wav = noise(4, 32_000, clips=1)
    whole = base.PasstBasicWrapper(mel=extractor.spectrogram, net=network, mode="all").eval()
    padded = torch.nn.functional.pad(torch.tensor(wav), (0, 320_000 - wav.shape[1]))
    with torch.no_grad():
        expected = whole.get_scene_embeddings(padded).numpy()
    found, logits = extractor(wav)
    assert logits == pytest.approx(expected[:, :527], abs=1e-4)
    assert found == pytest.approx(expected[:, 527:], abs=1e-4) and found.shape == (1, 768)
    torch.save({"head.1.bias": torch.zeros(3)}, path)
    with pytest.raises(IntegrityError, match="not a state dict of PaSST"):
        features.load("passt", path)


# Recipes


@pytest.mark.parametrize("key", ["evaluate.features", "synth.judge"])
def test_recipes_refuse_networks_that_know_no_classes(key):
    from ajbench.core import recipe
    from ajbench.pipeline import preflight

    for name in ("clap", "vggish", "encodec"):
        with pytest.raises(
            UsageError, match=rf"^{key}={name}: knows no classes.*eval-gen --gen DIR --ref DIR"
        ):
            preflight.check_names(recipe.load("mini", (f"{key}={name}",)))
    preflight.check_names(recipe.load("mini", (f"{key}=ast",)))
