"""Clips per second of synthesis: one clip per call as in published sampling scripts, and ajbench's batches.

python benchmarks/synth_speed.py GENERATOR TOKENS STORE [--clips 16] [--rounds 5] [--out FILE.csv]

GENERATOR, TOKENS and STORE are folders of `ajbench train-gen`, `invert` and `prepare`. Prompts are those of
the store's first train clips, noise is seeded per clip, and all variants end with waveforms.

- one by one: one clip per call, prompt and empty prompt encoded each time, two U-Net passes per step for
  guidance, 45 steps of PNDM (46 calls); diffusers' scheduler and U-Net, nothing else.
- batches: the same steps through `AudioJourneyPipeline.grids`, as in `ajbench synth`.
- fast: the same with 16 steps of DPM-Solver++ even in log-SNR, ajbench's recommended setting.

They take turns within a round; printed are medians over rounds, and of each round's ratio to the first. The
difference is the largest between its grids and those of the first.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import diffusers
import torch
from diffusers import PNDMScheduler
from recorded import processor, record
from torch import Tensor

from ajbench.data.store import ClipStore
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.prompts import sound_of
from ajbench.generation.sampling import noise_for
from ajbench.generation.textual_inversion import class_tokens

GUIDANCE, STEPS, FAST_STEPS, BATCH = 3.0, 45, 16, 8


@torch.no_grad()
def one_by_one(pipeline: AudioJourneyPipeline, prompts: list[str], seeds: list[int]) -> Tensor:
    """Return grids [B, 128, H, 21] sampled as in a published script, decoded one by one."""
    scheduler = PNDMScheduler.from_config(
        dict(pipeline.training), skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
    )
    grids = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        ids, mask = pipeline.text.tokenize([prompt, ""])
        states = pipeline.text.states(ids, mask)
        scheduler.set_timesteps(STEPS)
        x = noise_for([seed], (128, pipeline.rows, 21)).to(pipeline.unet.device)
        for t in scheduler.timesteps:
            given = pipeline.unet(x, t, encoder_hidden_states=states[:1]).sample
            without = pipeline.unet(x, t, encoder_hidden_states=states[1:]).sample
            x = scheduler.step(without + GUIDANCE * (given - without), t, x).prev_sample
        pipeline.codec.decode_latents(pipeline.whitening.latents(x))
        grids.append(x.cpu())
    return torch.cat(grids)


@torch.no_grad()
def batches(
    pipeline: AudioJourneyPipeline, prompts: list[str], seeds: list[int], sampler: str, steps: int
) -> Tensor:
    """Return the same in batches, with text states from the pipeline's cache."""
    grids = []
    for start in range(0, len(prompts), BATCH):
        part = slice(start, start + BATCH)
        made = pipeline.grids(prompts[part], None, seeds[part], 1.0, GUIDANCE, steps, sampler)
        pipeline.codec.decode_latents(pipeline.whitening.latents(made))
        grids.append(made)
    return torch.cat(grids)


def main() -> None:
    """Measure on the CPU, or on a GPU if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = AudioJourneyPipeline.from_pretrained(options.generator, options.tokens, device=device)
    store = ClipStore.open(options.store)
    tokens, labels = class_tokens(store.meta.labels), store.column("labels")
    clips = store.split_indices("train")[: options.clips]
    prompts = [sound_of([tokens[name] for name in labels[i]]) for i in clips]
    seeds = list(range(len(prompts)))

    ways: dict[str, Callable[[], Tensor]] = {
        "one by one, pndm 45": lambda: one_by_one(pipeline, prompts, seeds),
        "batches, pndm 45": lambda: batches(pipeline, prompts, seeds, "pndm", STEPS),
        f"fast, dpmsolver++ {FAST_STEPS}": lambda: batches(
            pipeline, prompts, seeds, "dpmsolver++", FAST_STEPS
        ),
    }
    base = next(iter(ways))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    grids = {}
    for number in range(options.rounds + 1):  # the first warms up
        for way, function in ways.items():
            began = time.perf_counter()
            grids[way] = function()
            if number:
                seconds[way].append(time.perf_counter() - began)
    header = ["way", "clips_a_second", "ratio", "difference", "seconds", "clips", "rounds", "parameters"]
    header += ["device", "threads", "torch", "diffusers"]
    rows = []
    for way, took in seconds.items():
        ratio = median(a / b for a, b in zip(seconds[base], took, strict=True))
        same = (grids[way] - grids[base]).abs().max().item()
        speed = [
            round(len(prompts) / median(took), 3),
            round(ratio, 2),
            f"{same:.1e}",
            round(median(took), 2),
        ]
        about = [len(prompts), options.rounds, pipeline.info.parameters, processor(device)]
        rows.append([way, *speed, *about, torch.get_num_threads(), torch.__version__, diffusers.__version__])
    record(header, rows, 4, options.out)


if __name__ == "__main__":
    main()
