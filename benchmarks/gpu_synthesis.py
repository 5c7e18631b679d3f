"""Synthesis with the full U-Net and EnCodec, random weights; the codec alone: parts of benchmarks/gpu.py.

Micro-batches go through the code of `ajbench synth`: guides, prompts (MiniLM), sampling with guidance, codes,
waves, checks and FLAC. FLOPs are those of the U-Net's evaluations, twice for guidance.
"""

import itertools
import time
from pathlib import Path

import torch
from gpu import Report, device, measured
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ajbench.codec import Codec
from ajbench.codec.whitening import Whitening
from ajbench.core.recipe import Synth
from ajbench.generation import unet
from ajbench.generation.checkpoint import GeneratorInfo
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.sampling import schedule
from ajbench.generation.text_encoder import MiniLM
from ajbench.generation.worker import Job, Models
from ajbench.pipeline.estimates import _NoiseGuides

SAMPLES, FRAMES, TOKENS = 161_280, 504, 50
# Micro-batch, precision, sampler, steps from noise, strength.
SETTINGS = (
    (8, "fp32", "pndm", 45, 0.6), (8, "bf16", "pndm", 45, 0.6), (64, "bf16", "pndm", 45, 0.6),
    (64, "bf16", "pndm", 45, 1.0), (64, "bf16", "dpmsolver++", 16, 0.6),
)  # fmt: skip


def random_codec() -> Codec:
    """Return EnCodec in the paper's mode, with random weights."""
    import warnings

    from encodec import EncodecModel

    from ajbench.codec.encodec import from_model

    with warnings.catch_warnings():  # the package uses torch's deprecated weight norm
        warnings.simplefilter("ignore", FutureWarning)
        return from_model(EncodecModel.encodec_model_24khz(pretrained=False), "16k")


def random_pipeline(tiny: bool, precision: str) -> AudioJourneyPipeline:
    """Return a generator with random weights on the device."""
    where, found = torch.device(device()), random_codec()
    text = MiniLM(max_tokens=TOKENS).to(where)
    preset: unet.Preset = "tiny" if tiny else "full"
    frames = 42 if tiny else FRAMES
    info = GeneratorInfo(
        fingerprint="random", preset=preset, text_encoder="minilm", max_tokens=TOKENS, mask=False,
        codec=found.name, codec_hash=found.weights_hash, clip_samples=frames * 320, frames=frames,
        labels=("Dog", "Rain"), train_ids=(), train_recordings=(), train_steps=0, seed=0, precision=precision,
        parameters=0, prompts=1, prompts_cut=0,
    )  # fmt: skip
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = unet.build(preset, text.dim).to(where)
    nn.Module.to(network, dtype)  # as in `AudioJourneyPipeline.from_pretrained`
    whitening = Whitening((0.0,) * 128, (1.0,) * 128)
    training = dict(unet.noise_schedule().config)
    return AudioJourneyPipeline(info, network, text, whitening, found.to(where), training)


def denoiser_flops(pipeline: AudioJourneyPipeline) -> float:
    """Return the FLOPs of one evaluation of the U-Net for one clip."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = unet.build(pipeline.info.preset, pipeline.text.dim)  # type: ignore[arg-type]
        x, t = torch.zeros(1, 128, pipeline.rows, 21), torch.zeros(1, dtype=torch.long)
        unet.denoise(model, x, t, torch.zeros(1, TOKENS, pipeline.text.dim), None)
    return counter.get_total_flops()


def synthesis(tiny: bool, report: Report) -> None:
    """Measure clips a second of each setting, over three micro-batches after one that warms up."""
    pipeline = None
    for batch, precision, sampler, steps, strength in SETTINGS[1:2] if tiny else SETTINGS:
        if pipeline is None or str(pipeline.unet.dtype).endswith("float32") != (precision == "fp32"):
            pipeline = None  # frees the first
            pipeline = random_pipeline(tiny, precision)
        if tiny:
            batch, steps = 2, 4
        options = {"micro_batch": batch, "sampler": sampler, "sampler_steps": steps, "strength": strength}
        section = Synth(n=3 * batch, guidance=5.0, prompt="names", precision=precision, **options)
        guides = _NoiseGuides(pipeline.info)
        job = Job(section, guides, Path(), None, Path(), None, 1, section.n, 0, "")
        evaluations = len(schedule(sampler, steps, strength, pipeline.training).timesteps)
        numbers = itertools.count()

        def part() -> list[dict]:
            row = {"prompt": "The sound of Dog", "caption": None, "labels": ["Dog"], "label_ids": [0]}
            row |= {"parent": 0 if strength < 1 else None, "parent_id": None}  # noqa: B023
            return [row | {"clip_id": f"c{k}", "seed": k} for k in itertools.islice(numbers, batch)]  # noqa: B023

        about = {"work": f"synthesis, {sampler} {steps}, strength {strength:g}", "precision": precision}
        about["model"] = f"U-Net {pipeline.info.preset} + EnCodec"
        rounds = 1 if tiny else 3
        try:
            models = Models(pipeline, None)
            list(job.generated(models, [part()]))
            if device() == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            list(job.generated(models, [part() for _ in range(rounds)]))
            seconds = (time.perf_counter() - began) / rounds
        except torch.cuda.OutOfMemoryError:
            report(about | {"batch": batch, "error": "out of memory"})
            continue
        flops = denoiser_flops(pipeline) * 2 * evaluations
        row = about | {"batch": batch, "seconds": f"{seconds:.4g}", "unit": "evaluations a clip"}
        row |= {"clips_per_second": f"{batch / seconds:.4g}", "gflop_per_clip": f"{flops / 1e9:.4g}"}
        row |= {"tflop_per_second": f"{flops * batch / seconds / 1e12:.4g}", "value": evaluations}
        if device() == "cuda":
            row["memory_gb"] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"
        report(row)


def codec(tiny: bool, report: Report) -> None:
    """Measure EnCodec's encoder and decoder in fp32, in which they always compute."""
    found, samples = random_codec().to(torch.device(device())), 6720 if tiny else SAMPLES
    for batch in (2,) if tiny else (8, 32, 64):
        wav = 0.1 * torch.randn(batch, samples, device=device())
        codes = found.encode(wav)
        for work, call in (("encode", lambda: found.encode(wav)), ("decode", lambda: found.decode(codes))):  # noqa: B023
            with FlopCounterMode(display=False) as counter:
                call()
            flops = counter.get_total_flops() / batch
            row = measured(call, batch, flops, rounds=1 if tiny else 3)
            report({"work": work, "model": "EnCodec", "precision": "fp32"} | row)
