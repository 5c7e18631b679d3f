"""What tests share: corpora if they are there, small sounds, no network, no global randomness."""

import gc
import importlib.util
import json
import os
import pickle
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("AJBENCH_SHARED", REPOSITORY.parent / "shared"))

# No database folder, no deadline on a busy machine, the same examples every time.
settings.register_profile("ajbench", database=None, deadline=None, derandomize=True)
settings.load_profile("ajbench")


def pytest_configure():
    # Before any test module imports a library that would ask the hub, or start threads: with one thread
    # in every process, the tests do not disturb each other and sums are always in the same order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_OFFLINE"] = "1"
    gc.disable()


def pytest_collection_modifyitems(items):
    # A process runs whole files: without the longest one first, the others wait for it in the end.
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


def pytest_collection_finish():
    # Imported modules stay until the end: collections of garbage need not look through them each time.
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def _shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not in {SHARED}; set AJBENCH_SHARED to the folder that has it")
    return path


@pytest.fixture
def unsynced(monkeypatch):
    """A function folder → files and folders in it, by name, that would be lost with power."""
    kept, fsync = {}, os.fsync

    def noted(descriptor):
        fsync(descriptor)
        about = os.fstat(descriptor)
        kept[about.st_ino] = about.st_mtime_ns

    def lost(folder):
        found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*")}
        return {name for name, about in found.items() if kept.get(about.st_ino) != about.st_mtime_ns}

    monkeypatch.setattr(os, "fsync", noted)
    return lost


@pytest.fixture(scope="session")
def esc10_dir():
    """ESC-10 in ESC-50's layout: 400 Ogg clips, 10 classes, 5 folds."""
    return _shared("data/esc10")


@pytest.fixture(scope="session")
def audioset_dir():
    """AudioSet's label, ontology and segment files."""
    return _shared("data/audioset")


@pytest.fixture(scope="session")
def tagger_path():
    """The mn04 AudioSet tagger's state dict."""
    return _shared("models/mn04_as_mAP_432.pt")


@pytest.fixture(scope="session")
def published_dir():
    """The paper's tables as CSV."""
    return _shared("published")


@pytest.fixture(scope="session")
def golden_dir():
    """Reference values: entailment scores and caption metrics of the paper's examples."""
    return _shared("golden")


@pytest.fixture
def rng():
    return np.random.default_rng(20240711)


@pytest.fixture(scope="session")
def tone():
    """tone(frequency_hz, seconds, rate, amplitude) -> float32 [n]: a sine with a little seeded noise."""

    def make(frequency=440.0, seconds=1.0, rate=16_000, amplitude=0.3):
        t = np.arange(round(seconds * rate)) / rate
        noise = np.random.default_rng(round(frequency)).normal(0, 1e-3, len(t))
        return (amplitude * np.sin(2 * np.pi * frequency * t) + noise).astype(np.float32)

    return make


@pytest.fixture
def write_wav(tmp_path, tone):
    """write_wav(name, samples=a tone, rate=16000, subtype=None) -> path below tmp_path, folders made."""

    def write(name, samples=None, rate=16_000, subtype=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if samples is None:
            samples = tone(200 + sum(name.encode()) % 2000, rate=rate)
        soundfile.write(path, samples, rate, subtype=subtype)
        return path

    return write


@pytest.fixture
def cuda():
    """The first CUDA device, with products in full float32."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = False
    yield torch.device("cuda", 0)
    products.allow_tf32, convolutions.allow_tf32 = before


@pytest.fixture
def audiomentations(monkeypatch):
    """The library if it is installed, otherwise a stand-in."""
    try:
        import audiomentations
    except ImportError:
        from fakes import fake_audiomentations

        audiomentations = fake_audiomentations()
        monkeypatch.setitem(sys.modules, "audiomentations", audiomentations)
    return audiomentations


@pytest.fixture
def no_workers(monkeypatch):
    """Run in this process what workers would: stages that have been pickled, one after another."""
    from ajbench.pipeline import parallel

    def run_here(stages, _processes, device, force=False, _engine="local"):
        for stage in stages:
            pickle.loads(pickle.dumps(parallel._bare(stage))).run(device, force)

    monkeypatch.setattr(parallel, "run_in_workers", run_here)


@pytest.fixture
def ray_settings():
    """Variables of a process that starts Ray, on a busy machine too; skips without Ray."""
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed; pip install 'ajbench[ray]'")
    return {"ACCELERATE_USE_CPU": "true", "RAY_raylet_start_wait_time_s": "180"}


@pytest.fixture
def job_on_ray(ray_settings, tmp_path):
    """job_on_ray(job) -> what a job of `pipeline/jobs_on_ray.py` prints."""
    from fakes import run_script

    def run(job):
        command = [sys.executable, Path(__file__).with_name("pipeline") / "jobs_on_ray.py", job, tmp_path]
        return json.loads(run_script(command, **ray_settings).stdout.splitlines()[-1])

    return run


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse every connection that leaves the machine."""

    def guard(connect):
        def guarded(self, address):
            if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
                raise OSError(f"tests must not use the network (connection to {address})")
            return connect(self, address)

        return guarded

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guard(getattr(socket.socket, name)))


@pytest.fixture(scope="session")
def chords(tmp_path_factory):
    """Folders gen and ref of short chords with the same names, and features cached beside them; read only."""
    from fakes import write_chords

    return write_chords(tmp_path_factory.mktemp("chords"))


@pytest.fixture
def own_chords(chords, tmp_path):
    """The same to change."""
    for name in ("gen", "ref"):
        shutil.copytree(chords / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    """Folders gen and ref of noises of six kinds, captions, and features cached beside them; read only."""
    from fakes import write_kinds

    return write_kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def own_kinds(kinds, tmp_path):
    """The same to change."""
    shutil.copytree(kinds, tmp_path, ignore=shutil.ignore_patterns("cache"), dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="session")
def tiny():
    """The codec that the project ships."""
    from ajbench import codec

    return codec.load("tiny")


@pytest.fixture(scope="session")
def mini_waves():
    """mini_waves(first, n): 2-s waves of `mini`, all different."""
    from ajbench.data.corpora import mini

    made = {k: mini.render(11, k, 2.0)[0] for k in range(110)}
    return lambda first, n=1: [made[k] for k in range(first, first + n)]


@pytest.fixture(scope="session")
def audit_folders(tmp_path_factory, mini_waves):
    """Folders train (40 clips), eval (30), clean (30) and planted (the clean ones and 10 copies of eval)."""
    from fakes import PLANT_KINDS, plant_copy, write_clip

    root, rng = tmp_path_factory.mktemp("audit"), np.random.default_rng(5)
    for part, first, n in (("train", 0, 40), ("eval", 40, 30), ("clean", 70, 30), ("planted", 70, 30)):
        for k, wave in enumerate(mini_waves(first, n)):
            write_clip(root / part, f"{part}-{k}", wave)
    for number in range(10):
        kind = PLANT_KINDS[number // 2]
        variant, wave = plant_copy(kind, number, *mini_waves(40 + 2 * number), rng)
        write_clip(root / "planted", f"leak-{kind}-{number}-{variant.replace(' ', '')}", wave)
    return root


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory):
    """A small random CLAP with its tokenizer and audio processor."""
    from fakes import save_text_encoder
    from transformers import ClapFeatureExtractor

    folder = save_text_encoder("clap", tmp_path_factory.mktemp("clap"))
    ClapFeatureExtractor(
        feature_size=8, truncation="rand_trunc", padding="repeatpad", frequency_min=50, max_length_s=1
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium of this machine, driven by playwright."""
    from browser import NAMES

    playwright = pytest.importorskip("playwright.sync_api", reason="pages: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"pages: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path)
        yield browser
        browser.close()
