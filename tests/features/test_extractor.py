import re
import types

import numpy as np
import pytest
import torch
from fakes import Unsafe

from ajbench import features
from ajbench.core import registry, weights
from ajbench.core.device import device_of
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.features import extractor as module
from ajbench.features.extractor import Extractor, LazyExtractor


class Means(Extractor):
    """Three samples as features; lowest and highest as logits."""

    labels = ("low", "high")

    def __init__(self, name="means", path=None, device=None):
        self.name, self.device, self.largest = name, torch.device("cpu"), 0

    def compute(self, wav):
        self.largest = max(len(wav), self.largest)
        return wav[:, :3], torch.stack([wav.amin(dim=1), wav.amax(dim=1)], dim=1)


def test_features_and_logits_are_those_of_one_pass(rng):
    wav = rng.normal(size=(7, 20)).astype(np.float32)
    embedded, logits = Means()(wav)
    assert np.array_equal(embedded, wav[:, :3]) and np.array_equal(embedded, Means().features(wav))
    assert np.array_equal(logits, np.stack([wav.min(1), wav.max(1)], 1))
    assert np.array_equal(logits, Means().logits(wav))


def test_features_are_computed_without_tf32(rng):
    class Convolved(Means):
        def compute(self, wav):
            tf32.append(torch.backends.cudnn.allow_tf32)
            return super().compute(wav)

    tf32 = []
    Convolved()(rng.normal(size=(2, 20)).astype(np.float32))
    assert tf32 == [False]


def test_reference_computes_features_and_logits_in_one_pass(reference_folder, rng):
    extractor = features.load("reference", reference_folder)
    wav, passes = rng.normal(size=(2, 80_640)).astype(np.float32), []
    extractor.classifier.module.frontend.register_forward_hook(lambda *_: passes.append(1))
    embedded, logits = extractor(wav)
    assert len(passes) == 1
    assert np.array_equal(embedded, extractor.classifier.embed(wav).numpy())
    assert np.array_equal(logits, extractor.classifier.predict(wav).numpy())


def test_reference_is_a_trained_classifier(reference_folder, monkeypatch, rng):
    wait = lambda *_, **__: pytest.fail("waits for other processes of a launch, which may never come")  # noqa: E731
    monkeypatch.setattr("accelerate.PartialState.__init__", wait)
    extractor = features.load("reference", reference_folder)
    wav = rng.normal(size=(2, 80_640)).astype(np.float32)
    embedded, logits = extractor(wav)
    assert extractor.labels == ("rain", "dog") and logits.shape == (2, 2)
    assert embedded.shape[0] == 2 and embedded.dtype == logits.dtype == np.float32
    assert np.array_equal(logits, extractor.classifier.predict(wav).numpy())
    assert np.array_equal(logits, extractor.logits(wav))
    assert (extractor.min_samples, extractor.max_samples) == (80_640, 80_640)
    assert extractor.classifier.device == device_of(0)
    assert LazyExtractor("reference", reference_folder).weights_hash == extractor.classifier.config["xxh3"]


def test_unknown_and_missing_extractors():
    for make in (features.load, LazyExtractor):
        with pytest.raises(UsageError, match="did you mean 'mn04'"):
            make("mn4")
        with pytest.raises(MissingError, match="train-cls"):
            make("reference")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("passt", "hear21passt", "passt"), ("laion-clap", "frechet_audio_distance", "fad")],
)
def test_the_extra_is_named_where_the_package_is_missing(name, package, extra, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingError, match=rf"{package}.*ajbench\[{extra}\]"):
        LazyExtractor(name, tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, entry in registry.FEATURES.items()
        if name != "reference" and not entry.package and not entry.shipped
    ],
)
def test_missing_weights_are_found_out_before_anything_is_loaded(name, empty_caches, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "resolve", lambda *_: pytest.fail("the module is imported"))
    row = weights.files_of(name)[0]
    message = f"^features {name}: .*{re.escape(row.url)}.*use features "
    with pytest.raises(MissingError, match=message) as missing:
        LazyExtractor(name)
    assert str(tmp_path) in str(missing.value) and "\n" not in str(missing.value)
    with pytest.raises(MissingError, match=r"/nowhere.pth"):
        LazyExtractor(name, "/nowhere.pth")


def test_missing_weights_name_the_variable_and_features_that_need_none(empty_caches, monkeypatch):
    with pytest.raises(MissingError, match="use features tiny") as there:
        LazyExtractor("mn04")
    assert "set AJBENCH_WEIGHTS" not in str(there.value)
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    with pytest.raises(MissingError, match=r"set AJBENCH_WEIGHTS to a folder and .*use features tiny"):
        LazyExtractor("mn04")


@pytest.mark.parametrize("name", ["mn04", "panns16k", "vggish", "encodec"])
def test_files_of_something_else_are_refused_in_one_line_and_no_code_is_run(name, tmp_path):
    path = tmp_path / "other.pth"
    for content in ([1, 2], {"model": 3}, {"model": [1, 2]}, torch.zeros(3), {"x": Unsafe(tmp_path / "ran")}):
        torch.save(content, path)
        with pytest.raises(IntegrityError, match=str(path)) as error:
            features.load(name, path)
        assert "\n" not in str(error.value)
    for content in (b"no such thing", b""):
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=str(path)):
            features.load(name, path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["mn10", "panns32k", "vggish", "encodec"])
def test_weights_in_the_usual_places_have_to_be_the_published_ones(name, empty_caches, tmp_path):
    row = weights.files_of(name)[0]
    (tmp_path / row.file).write_bytes(b"junk")
    assert LazyExtractor(name).weights_hash == weights.identity(tmp_path / row.file)
    with pytest.raises(IntegrityError, match=re.escape(row.url)):
        features.load(name)


def test_a_lazy_extractor_knows_its_kind_and_loads_once(reference_folder, monkeypatch):
    lazy = LazyExtractor("reference", reference_folder)
    assert (lazy.classes, lazy.frames, lazy.texts, lazy.name) == (True, False, False, "reference")
    loaded = []
    load = lambda *given: loaded.append(given) or Means()  # noqa: E731
    monkeypatch.setattr("ajbench.core.registry.resolve", lambda *_: load)
    assert lazy.labels == ("low", "high") and lazy.sample_rate == 16_000 and lazy.max_samples is None
    assert lazy(np.zeros((1, 5), np.float32))[0].shape == (1, 3)
    assert loaded == [("reference", reference_folder)]
    with pytest.raises(UsageError, match="clap"):
        lazy.text(["a dog"])
    with pytest.raises(AttributeError):
        lazy._private  # noqa: B018


@pytest.fixture
def own_registry(monkeypatch):
    """Forget afterwards which extractors a test registered."""
    monkeypatch.setattr(registry, "FEATURES", dict(registry.FEATURES))
    monkeypatch.setitem(registry.KINDS, "features", registry.FEATURES)


OWN = """
from ajbench.core import registry
from ajbench.features.extractor import Extractor

class Mine(Extractor):
    "Half of each clip."
    def compute(self, wav):
        return wav[:, ::2], None

registry.register("features", "half", Mine, classes=False)
"""


def test_an_extractor_of_a_plug_in_file_is_an_extractor_like_any_other(
    own_registry, tmp_path, monkeypatch, rng
):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    monkeypatch.setenv("AJBENCH_PLUGINS", str(path))
    lazy = LazyExtractor("half")
    assert registry.FEATURES["half"].description == "Half of each clip." and not lazy.classes
    wav = rng.normal(size=(2, 8)).astype(np.float32)
    found, logits = lazy(wav)
    assert np.array_equal(found, wav[:, ::2]) and logits.shape == (2, 0)
    assert found.flags["C_CONTIGUOUS"]
    # Its code is its identity, so that cached features of other code are not used.
    assert lazy.weights_hash == weights.identity(path)
    assert LazyExtractor("half", path).weights_hash != lazy.weights_hash
    with pytest.raises(UsageError, match="mn04"):
        registry.register("features", "mn04", Means)
    with pytest.raises(UsageError, match="'feature'"):
        registry.register("feature", "half", Means)


def test_plug_ins_that_are_not_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_PLUGINS", str(tmp_path / "nowhere.py"))
    with pytest.raises(MissingError, match=r"AJBENCH_PLUGINS.*nowhere.py"):
        LazyExtractor("half")


def test_an_extractor_without_a_file_is_never_taken_from_the_cache(own_registry, monkeypatch):
    interactive = types.new_class("Interactive", (Means,))
    interactive.__module__ = "__main__"
    monkeypatch.setattr(module.inspect, "getfile", lambda _: (_ for _ in ()).throw(OSError))
    registry.register("features", "interactive", interactive)
    assert LazyExtractor("interactive").weights_hash != LazyExtractor("interactive").weights_hash
