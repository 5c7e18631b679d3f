"""Compare FD, IS and KL with those of audioldm_eval and av-benchmark on the same arrays.

python benchmarks/evaluator_parity.py --audioldm-eval DIR --av-benchmark DIR --data DIR --tagger FILE
[--out FILE.csv]

The DIRs of the tools are checkouts of haoheliu/audioldm_eval (written against commit 8dc07ee) and
hkchengrex/av-benchmark (050a5cd). Only the three files with these metrics are loaded, by path, because the
packages need a GPU, networks and downloads. They run unchanged.

Arrays: rectified correlated features, with more clips than dimensions and with fewer (FD's covariances are
then singular, and their matrix root takes most of a minute); logits whose scale varies by clip; and
embeddings and logits of mn04 (--tagger) for 100 clips of ESC-10 and 100 others (--data, ESC-50's layout),
paired by order for KL. All are float32, as extractors give them to the tools.

Exits with 1 where a relative difference exceeds 1e-6 (FD: 1e-4). Seconds are of one call on one thread.
"""

import argparse
import contextlib
import importlib.util
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy
import torch
from recorded import processor, record

from ajbench import features
from ajbench.core import console
from ajbench.data import audio
from ajbench.metrics.distribution import frechet_distance, inception_score, kl_divergence

LIMITS = {"fd": 1e-4}
LIMIT = 1e-6
SPLITS, SEED, CLASSES = 10, 2020, 527
Values = dict[str, float]
Metric = Callable[[np.ndarray, np.ndarray], Values]


def module(path: Path) -> ModuleType:
    """Load one file of a checkout without its package."""
    spec = importlib.util.spec_from_file_location(f"{path.parts[-4]}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: no such file; is this the tool's checkout?")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def audioldm_eval(checkout: Path) -> dict[str, Metric]:
    """Return its metrics of (generated, reference)."""
    folder = checkout / "audioldm_eval" / "metrics"
    fid, isc, kl = (module(folder / f"{name}.py") for name in ("fid", "isc", "kl"))

    def entry(values: np.ndarray) -> dict[str, Any]:
        names = [f"{i}.wav" for i in range(len(values))]
        return {"2048": torch.tensor(values), "logits": torch.tensor(values), "file_path_": names}

    def fd(gen: np.ndarray, ref: np.ndarray) -> Values:
        return {"fd": fid.calculate_fid(entry(gen), entry(ref), "2048")["frechet_distance"]}

    def inception(gen: np.ndarray, _: np.ndarray) -> Values:
        found = isc.calculate_isc(entry(gen), "logits", SEED, True, SPLITS)
        return {"is_mean": found["inception_score_mean"], "is_std": found["inception_score_std"]}

    def divergence(gen: np.ndarray, ref: np.ndarray) -> Values:
        found = kl.calculate_kl(entry(gen), entry(ref), "logits")[0]
        return {f"kl_{k}": found[f"kullback_leibler_divergence_{k}"] for k in ("softmax", "sigmoid")}

    return {"fd": fd, "is": inception, "kl": divergence}


def av_benchmark(checkout: Path) -> dict[str, Metric]:
    """Return its metrics of (generated, reference)."""
    folder = checkout / "av_bench" / "metrics"
    fad, isc, kl = (module(folder / f"{name}.py") for name in ("fad", "isc", "kl"))

    def inception(gen: np.ndarray, _: np.ndarray) -> Values:
        found = isc.compute_isc(torch.tensor(gen), None, SEED, True, SPLITS)
        return {"is_mean": found["inception_score_mean"], "is_std": found["inception_score_std"]}

    def divergence(gen: np.ndarray, ref: np.ndarray) -> Values:
        found = kl.compute_kl([torch.tensor(gen)], torch.tensor(ref))
        return {name: found[name] for name in ("kl_softmax", "kl_sigmoid")}

    return {"fd": lambda gen, ref: {"fd": fad.compute_fd(gen, ref)}, "is": inception, "kl": divergence}


def ours(eps: float) -> dict[str, Metric]:
    """Return our metrics of (generated, reference); `eps` is KL's."""

    def inception(gen: np.ndarray, _: np.ndarray) -> Values:
        return dict(zip(("is_mean", "is_std"), inception_score(gen, SPLITS, SEED), strict=True))

    def divergence(gen: np.ndarray, ref: np.ndarray) -> Values:
        return {
            "kl_softmax": kl_divergence(gen, ref, "softmax", eps=eps),
            "kl_sigmoid": kl_divergence(gen, ref, "sigmoid", eps=eps),
        }

    return {"fd": lambda gen, ref: {"fd": frechet_distance(gen, ref)}, "is": inception, "kl": divergence}


def random_cases() -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield (case, which arrays, generated, reference) drawn from a seed."""
    rng = np.random.default_rng(0)
    for n, n_ref, d in ((600, 600, 384), (300, 1000, 2048)):
        mix = rng.normal(size=(d, d)) * np.geomspace(1, 0.01, d)[:, None] * 8 / np.sqrt(d)
        ref = np.maximum(rng.normal(size=(n_ref, d)) @ mix, 0)
        gen = np.maximum(rng.normal(size=(n, d)) @ mix * 1.1 + 0.1, 0)
        yield "random", "features", gen.astype(np.float32), ref.astype(np.float32)
    gen, ref = (
        (rng.normal(size=(1000, CLASSES)) * rng.lognormal(1, 1, (1000, 1)) - 4).astype(np.float32)
        for _ in range(2)
    )
    yield "random", "logits", gen, ref


def real_cases(data: Path, tagger: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield embeddings and logits of mn04 for 100 clips of ESC-10 and 100 others."""
    files = sorted((data / "audio").iterdir())[:200]
    extractor = features.load("mn04", tagger)
    batches = (
        np.stack([audio.fit(audio.read(file), audio.clip_samples(5.04)) for file in files[i : i + 10]])
        for i in range(0, len(files), 10)
    )
    parts = zip(*map(extractor, batches), strict=True)
    for what, part in zip(("features", "logits"), parts, strict=True):
        found = np.concatenate(part)
        yield "ESC-10 mn04", what, found[:100], found[100:]


def clocked(metric: Metric, gen: np.ndarray, ref: np.ndarray) -> tuple[Values, float]:
    """Run a metric with its output suppressed; return its values and seconds."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # They call sqrtm with a deprecated argument; ours warns that FD of few clips depends on n.
        warnings.simplefilter("ignore")
        found = metric(gen, ref)
    return found, time.perf_counter() - began


def main() -> None:
    """Compare, record, and fail where a value differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--audioldm-eval", "--av-benchmark", "--data", "--tagger"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tools = {
        "audioldm_eval": (audioldm_eval(options.audioldm_eval), ours(1e-6)),
        "av-benchmark": (av_benchmark(options.av_benchmark), ours(0.0)),
    }
    arrays = [*random_cases(), *real_cases(options.data, options.tagger)]
    about = [processor(), np.__version__, scipy.__version__, torch.__version__]
    rows: list[list] = []
    worse = []
    with console.progress(len(tools) * len(arrays), "compare", "arrays") as advance:
        for tool, (theirs, mine) in tools.items():
            for case, what, gen, ref in arrays:
                for kind in ("fd",) if what == "features" else ("is", "kl"):
                    (a, their_s), (b, our_s) = (clocked(m[kind], gen, ref) for m in (theirs, mine))
                    for metric, value in a.items():
                        apart = abs(b[metric] - value) / abs(value)
                        if not apart <= LIMITS.get(metric, LIMIT):
                            worse.append(f"{tool} {metric} {case} {gen.shape}: {apart:.1e}")
                        row = [tool, metric, case, len(gen), len(ref), gen.shape[1], value, b[metric]]
                        times = [float(f"{s:.3g}") for s in (their_s, our_s)]
                        rows.append([*row, float(f"{apart:.1e}"), *times, *about])
                advance(1)
    header = ["tool", "metric", "case", "n", "n_ref", "d", "theirs", "ours", "rel_diff"]
    header += ["their_seconds", "our_seconds", "processor", "numpy", "scipy", "torch"]
    record(header, rows, 11, options.out)
    if worse:
        sys.exit("differ: " + "; ".join(worse))


if __name__ == "__main__":
    main()
