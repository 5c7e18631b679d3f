"""Compare eval-gen with audioldm_eval's own loop on the same two folders: values and time.

python benchmarks/folder_parity.py ESC10 --audioldm-eval DIR [--n 100] [--rounds 1] [--out FILE.csv]

ESC10 is a folder in ESC-50's layout, DIR a checkout of haoheliu/audioldm_eval (8dc07ee), which needs
torchlibrosa. n clips are compared with n others of the same names, among them a stereo file, one at
44.1 kHz and a short one. Both run as separate processes with the same Cnn14 at 16 kHz: random weights, each
layer normalised on a few clips so that it distinguishes clips, in a checkpoint of PANNs' form. The tool's
`WaveDataset`, `get_featuresdict`, `calculate_fid`, `calculate_isc` and `calculate_kl` run unchanged, with its
six workers. Replaced are `torchaudio.load` (by soundfile, because torchaudio's needs torchcodec) and imports
of parts that are not run (scikit-image, ssr_eval, VGGish).

One row per metric: both values and their relative difference. Then the median seconds, ours also with cached
features. Exits with 1 where a difference exceeds 1e-3.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
import torch
from recorded import processor, record

from ajbench.data import audio
from ajbench.features.panns import SETTINGS, Cnn14

MOST = 1e-3
# Standard deviation of embeddings before rectification, and of logits. With larger embeddings of so few clips
# the tool rejects the imaginary part of its matrix root.
SPREAD = 0.1, 3.0
NAMES = {
    "fd": "frechet_distance",
    "is": "inception_score_mean",
    "kl": "kullback_leibler_divergence_softmax",
    "kl_sigmoid": "kullback_leibler_divergence_sigmoid",
}


def peer(checkout: Path) -> Any:
    """Import audioldm_eval's `eval` module from a checkout, without the parts that are not run."""

    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ("skimage", "skimage.metrics", "ssr_eval", "ssr_eval.metrics", "audioldm_eval.audio"):
        sys.modules[name] = Anything(name)
    for name in ("audioldm_eval.audio.tools", "audioldm_eval.metrics.fad"):
        sys.modules[name] = Anything(name)
    import torchaudio

    def load(path: str) -> tuple[torch.Tensor, int]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), rate

    torchaudio.load = load
    sys.path.insert(0, str(checkout))
    import audioldm_eval.eval as module

    return module


def theirs(checkout: Path, gen: str, ref: str) -> None:
    """Measure two folders as audioldm_eval does, and print its values."""
    module = peer(checkout)
    from audioldm_eval.datasets.load_mel import WaveDataset
    from torch.utils.data import DataLoader

    helper = module.EvaluationHelper.__new__(module.EvaluationHelper)
    helper.device, helper.backbone, helper.sampling_rate = torch.device("cpu"), "cnn14", 16_000
    s = SETTINGS["panns16k"]
    helper.mel_model = module.Cnn14(
        ["2048", "logits"], s.rate, s.window, s.hop, 64, s.low, s.high, 527
    ).eval()
    found = [
        helper.get_featuresdict(DataLoader(WaveDataset(folder, 16_000), batch_size=1, num_workers=6))
        for folder in (gen, ref)
    ]
    values = dict(module.calculate_kl(*found, "logits", True)[0])
    how = {"splits": 10, "samples_shuffle": True, "rng_seed": 2020}
    values |= module.calculate_isc(found[0], feat_layer_name="logits", **how)
    values |= module.calculate_fid(*found, feat_layer_name="2048")
    sys.stdout.write("VALUES " + json.dumps({name: values[key] for name, key in NAMES.items()}) + "\n")


def network(checkout: Path, waves: torch.Tensor, home: Path) -> Path:
    """Write a checkpoint of random weights that both load, its statistics those of waves [B, n] at 16 kHz."""
    torch.manual_seed(0)
    model = Cnn14(SETTINGS["panns16k"]).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # average over all batches

    def normalise(layer: torch.nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        scale, bias = SPREAD[layer is model.fc_audioset] / out.std(dim=0), out.mean(dim=0)
        layer.weight.mul_(scale[:, None])
        layer.bias.sub_(bias).mul_(scale)
        return (out - bias) * scale

    hooks = [layer.register_forward_hook(normalise) for layer in (model.fc1, model.fc_audioset)]
    with torch.no_grad():
        model(waves)
    for hook in hooks:
        hook.remove()
    folder = home / ".cache" / "audioldm_eval" / "ckpt"
    folder.mkdir(parents=True)
    for name in ("Cnn14_mAP=0.431.pth", "Cnn14_16k_mAP=0.438.pth"):
        (folder / name).touch()  # otherwise the tool would download it
    os.environ["HOME"] = str(home)
    module = peer(checkout)
    s = SETTINGS["panns16k"]
    plain, module.Cnn14.load_state_dict = module.Cnn14.load_state_dict, lambda self, state: None
    load, torch.load = torch.load, lambda path: {"model": {}}
    made = module.Cnn14(["2048", "logits"], s.rate, s.window, s.hop, 64, s.low, s.high, 527)
    module.Cnn14.load_state_dict, torch.load = plain, load
    mine = {name: value for name, value in model.state_dict().items() if name in made.state_dict()}
    torch.save({"model": made.state_dict() | mine}, folder / "Cnn14_16k_mAP=0.438.pth")
    return folder / "Cnn14_16k_mAP=0.438.pth"


def folders(esc10: Path, n: int, home: Path) -> tuple[Path, Path]:
    """Write n clips and n others under the same names; where there are too few, reuse them reversed."""
    sounds = sorted((esc10 / "audio").iterdir())
    enough = len(sounds) >= 2 * n
    if len(sounds) < n:
        raise SystemExit(f"{esc10}: {len(sounds)} clips, {n} are asked for")
    gen, ref = home / "gen", home / "ref"
    halves = (sounds[: 2 * n : 2], sounds[1 : 2 * n : 2]) if enough else (sounds[:n], sounds[:n])
    for folder, some in zip((gen, ref), halves, strict=True):
        folder.mkdir()
        for number, sound in enumerate(some):
            wave, rate = soundfile.read(sound, dtype="float32")
            if folder is gen and not enough:
                wave = wave[::-1]
            if number == 0:  # two different channels
                wave = np.stack([wave, wave[::-1]], axis=1)
            if number == 1:
                start = max(0, int(np.abs(wave).argmax()) - rate // 4)
                wave = wave[start : start + rate // 2]
            if number != 2:  # which keeps its rate
                step = rate / 16_000
                wave = wave if step == 1 else _at_16k(wave, rate)
                rate = 16_000
            soundfile.write(folder / f"{number:04d}.wav", wave, rate, subtype="PCM_16")
    return gen, ref


def _at_16k(wave: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return np.asarray(soxr.resample(wave, rate, 16_000))


def timed(command: list[str], home: Path) -> tuple[float, str]:
    """Run a command; return its seconds and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HOME": str(home)}
    )
    if done.returncode:
        raise SystemExit(f"{command[:4]} ended with {done.returncode}: {done.stderr[-1500:]}")
    return time.perf_counter() - began, done.stdout


def main() -> None:
    """Run both, compare, and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", type=Path)
    parser.add_argument("--audioldm-eval", type=Path, required=True)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--theirs", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.theirs:
        theirs(options.audioldm_eval, *options.theirs)
        return
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        gen, ref = folders(options.esc10, options.n, home)
        some = [
            audio.fit(soundfile.read(path, dtype="float32")[0], 80_000)
            for path in sorted(gen.iterdir())[3:19]
        ]
        file = network(options.audioldm_eval, torch.from_numpy(np.stack(some)), home)
        base = [sys.executable, "-W", "ignore"]
        own = [*base, "-m", "ajbench", "eval-gen", "--gen", str(gen), "--ref", str(ref), "--json", "--quiet"]
        own += ["--protocol", "audioldm_eval", "--features", f"panns16k={file}", "--work", str(home / "work")]
        peers = [*base, __file__, str(options.esc10), "--audioldm-eval", str(options.audioldm_eval)]
        seconds: dict[str, list[float]] = {"theirs": [], "ours": [], "kept": []}
        for _ in range(options.rounds):
            took, said = timed([*peers, "--theirs", str(gen), str(ref)], home)
            seconds["theirs"].append(took)
            shutil.rmtree(home / "work", ignore_errors=True)
            for kind in ("ours", "kept"):
                took, shown = timed(own, home)
                seconds[kind].append(took)
        line = next(line for line in said.splitlines() if line.startswith("VALUES "))
        expected = json.loads(line.removeprefix("VALUES "))
        found = {row["metric"]: row["value"] for row in json.loads(shown)["rows"]}
    header = ["what", "theirs", "ours", "relative", "clips", "rounds", "processor", "threads"]
    about = [2 * options.n, options.rounds, processor(), torch.get_num_threads()]
    rows: list[list[Any]] = []
    for metric, value in expected.items():
        rows.append([metric, value, found[metric], f"{abs(found[metric] / value - 1):.1e}", *about])
    for kind, what in (("ours", "seconds"), ("kept", "seconds, features kept")):
        a, b = median(seconds["theirs"]), median(seconds[kind])
        rows.append([what, round(a, 1), round(b, 1), f"{a / b:.2f} times as fast", *about])
    record(header, rows, 4, options.out)
    if any(abs(found[metric] / value - 1) > MOST for metric, value in expected.items()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
