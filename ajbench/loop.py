"""The only training loop: step function in, trained module out; exact resume, EMA, averaging, NaN stop.

Every source of randomness is a function of the step (batches, dropout), so a run that was killed and started
again ends with the same bits as one that was not (same device kind, versions and thread count).
"""

import csv
import json
import math
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
from accelerate import Accelerator
from accelerate.utils import send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ajbench import console
from ajbench.errors import IntegrityError, NumericError
from ajbench.run import seed_for
from ajbench.shards import checksum

Step = Callable[[nn.Module, Any, int], Tensor]
KEEP = 2
_AHEAD = 2  # batches decoded while one is trained on
_COLUMNS = ("step", "loss", "lr", "seconds")


def fit(
    module: nn.Module,
    step: Step,
    batches: Callable[[int], Any],
    *,
    steps: int,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int], float],
    folder: Path,
    checkpoint_every: int,
    seed: int = 0,
    ema_decay: float | None = None,
    average_last: float = 0.0,
    clip_grad: float = 1.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    what: str = "train",
) -> nn.Module:
    """Train `module` for `steps` optimiser steps, going on from the newest checkpoint in `folder`.

    Trained is what the optimiser holds; submodules with parameters of which none is trained stay in eval mode
    and out of the checkpoints.

    Args:
        module: moved to the accelerator's device; under DDP `step` must call `module(...)` itself.
        step: (module, batch on the device, step index) → scalar loss.
        batches: pure function of an index, called ahead in one background thread. In one process the index is
            the step; of W processes, process r asks for index step · W + r.
        lr_at: learning rate of a step, set on every parameter group.
        folder: receives `checkpoints/step-<n>/` (the last two) and `metrics.csv`.
        seed: with the step it seeds torch (dropout, noise drawn in `step`); the caller's RNG state is kept.
        ema_decay: return the exponential moving average; its decay grows as min(decay, (1 + n) / (10 + n)).
        average_last: return the mean of the weights over this share of the last steps (not with `ema_decay`).
        clip_grad: largest norm of the whole gradient.
        precision: bf16 autocast or not; auto is bf16 on CUDA and fp32 elsewhere.
        what: name shown in progress and errors.

    Returns:
        The unwrapped module in eval mode, with averaged weights where asked for.

    Raises:
        NumericError: loss or gradient is not finite; the last checkpoint stays.
        IntegrityError: a checkpoint is damaged or belongs to another module, optimiser or run length.
        KeyboardInterrupt: Ctrl-C, after the step at hand was finished and saved.
    """
    if ema_decay is not None and average_last > 0:
        raise ValueError("ema_decay and average_last exclude each other")
    accelerator = Accelerator()
    device = accelerator.device
    wrapped = accelerator.prepare_model(module)
    state = _State(module, optimizer, ema_decay, average_last, steps)
    folder.mkdir(parents=True, exist_ok=True)
    first = state.resume(folder)
    autocast = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    world, rank = accelerator.num_processes, accelerator.process_index
    module.train()
    for part in _frozen(module, state.parameters).values():
        part.eval()
    metrics = _Metrics(folder / "metrics.csv", first) if accelerator.is_main_process else None
    cuda = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(cuda),
        _sigint() as interrupted,
        console.progress(steps, what, "steps") as advance,
        closing(_prefetch(batches, range(first * world + rank, steps * world, world))) as ahead,
    ):
        advance(first)
        for index, batch in zip(range(first, steps), ahead, strict=True):
            started = time.perf_counter()
            torch.manual_seed(seed_for(seed, "step", index, rank))
            lr = lr_at(index)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                loss = step(wrapped, send_to_device(batch, device), index)
            accelerator.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(state.parameters.values(), clip_grad)
            value = loss.item()
            if not (math.isfinite(value) and math.isfinite(norm.item())):
                raise NumericError(_not_finite(what, index, value, newest(folder)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.after_step(index)
            done, stop = index + 1, interrupted()
            if metrics:
                metrics.add(done, value, lr, time.perf_counter() - started)
                if done % checkpoint_every == 0 or done == steps or stop:
                    metrics.flush()
                    state.save(folder, done)
                    console.detail(f"{what}: step {done} of {steps}, loss {value:.4f}, lr {lr:.2e}")
            advance(1)
            if stop:
                raise KeyboardInterrupt(f"{what}: stopped after step {done} of {steps}, which is saved")
    accelerator.wait_for_everyone()
    state.load_average()
    return module.eval()


def cosine(peak: float, warmup: int, steps: int, floor: float = 0.0) -> Callable[[int], float]:
    """Return lr_at: linear warm-up over `warmup` steps, then cosine decay to floor · peak at `steps`."""

    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        share = (step - warmup) / max(1, steps - warmup)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))

    return lr_at


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint folder under `folder`, or None."""
    return max((folder / "checkpoints").glob("step-*"), default=None)


class _State:
    """What a checkpoint holds: trained parameters, buffers beside them, the average, the optimiser."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema_decay: float | None,
        average_last: float,
        steps: int,
    ) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.parameters = {name: p for name, p in module.named_parameters() if id(p) in held}
        if len(self.parameters) != len(held):
            raise ValueError("the optimiser holds parameters that are not in the module")
        self.tensors: dict[str, Tensor] = {**self.parameters, **_buffers(module, self.parameters)}
        self.optimizer, self.ema_decay, self.steps = optimizer, ema_decay, steps
        self.average_from = steps - round(steps * average_last)
        self.float_names = [name for name, t in self.tensors.items() if t.is_floating_point()]
        self.floats = [self.tensors[name] for name in self.float_names]
        self.average: list[Tensor] = []
        if ema_decay is not None or average_last > 0:
            self.average = [t.detach().clone() for t in self.floats]

    @torch.no_grad()
    def after_step(self, index: int) -> None:
        """Move the average towards the weights that step `index` left."""
        if self.ema_decay is not None:
            weight = 1 - min(self.ema_decay, (1 + index) / (10 + index))
        elif self.average and index >= self.average_from:
            weight = 1 / (index - self.average_from + 1)
        else:
            return
        torch._foreach_lerp_(self.average, [t.detach() for t in self.floats], weight)

    @torch.no_grad()
    def load_average(self) -> None:
        """Put the average, where there is one, into the module."""
        for tensor, mean in zip(self.floats, self.average, strict=False):
            tensor.copy_(mean)

    def save(self, folder: Path, done: int) -> None:
        """Write `checkpoints/step-<done>` whole or not at all, then drop all but the last two."""
        final = folder / "checkpoints" / f"step-{done:08d}"
        part = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({name: _plain(t) for name, t in self.tensors.items()}, part / "weights.safetensors")
        if self.average:
            means = zip(self.float_names, self.average, strict=True)
            save_file({name: _plain(t) for name, t in means}, part / "average.safetensors")
        torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
        hashes = {path.name: checksum(path) for path in sorted(part.iterdir())}
        state = {"step": done, "steps": self.steps, "xxh3": hashes}
        (part / "state.json").write_text(json.dumps({**state, "seal": _seal(state)}))
        for path in part.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        part.replace(final)
        for old in sorted(final.parent.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)

    def resume(self, folder: Path) -> int:
        """Load the newest checkpoint; returns the number of steps done, 0 without one."""
        path = newest(folder)
        if path is None:
            return 0
        state = _verified(path)
        if state["steps"] != self.steps:
            raise IntegrityError(
                f"{path}: of a run of {state['steps']} steps, this one has {self.steps}; use another folder"
            )
        _copy(path / "weights.safetensors", self.tensors)
        if self.average:
            file = path / "average.safetensors"
            if not file.exists():
                raise IntegrityError(f"{file}: missing; the run that wrote {path.name} kept no average")
            _copy(file, dict(zip(self.float_names, self.average, strict=True)))
        try:
            self.optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
        except (ValueError, KeyError) as error:
            raise IntegrityError(f"{path / 'optimizer.pt'}: of another optimiser ({error})") from None
        return int(state["step"])


class _Metrics:
    """metrics.csv, one row a step; rows beyond the checkpoint that is resumed are dropped."""

    def __init__(self, path: Path, done: int) -> None:
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS) and row[0].isdigit()]
        part = path.with_name(f".{path.name}.tmp")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(row for row in rows if int(row[0]) <= done)
        part.replace(path)
        self.path, self.rows = path, list[tuple[int, str, str, str]]()

    def add(self, step: int, loss: float, lr: float, seconds: float) -> None:
        self.rows.append((step, repr(loss), repr(lr), f"{seconds:.4f}"))

    def flush(self) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows)
        self.rows.clear()


def _prefetch(batches: Callable[[int], Any], indices: range) -> Generator[Any, None, None]:
    """Yield batches(i) in order, with the next ones being made in one background thread."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(batches, i) for i in indices[:_AHEAD])
        try:
            for i in range(len(indices)):
                batch = waiting.popleft().result()
                if i + _AHEAD < len(indices):
                    waiting.append(pool.submit(batches, indices[i + _AHEAD]))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _sigint() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that a step is never cut in half; the second raises at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    previous = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, previous)


def _frozen(module: nn.Module, trained: dict[str, nn.Parameter]) -> dict[str, nn.Module]:
    """Submodules that have parameters, none of which is trained."""
    ids = {id(p) for p in trained.values()}
    has = ((name, part, [id(p) for p in part.parameters()]) for name, part in module.named_modules())
    return {name: part for name, part, own in has if own and ids.isdisjoint(own)}


def _buffers(module: nn.Module, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Persistent buffers, such as batch norm's statistics, outside the frozen submodules."""
    kept = module.state_dict(keep_vars=True).keys()
    frozen = tuple(f"{name}." for name in _frozen(module, trained))
    return {n: b for n, b in module.named_buffers() if n in kept and not n.startswith(frozen)}


def _copy(file: Path, target: dict[str, Tensor]) -> None:
    source = load_file(file)
    odd = sorted(source.keys() ^ target.keys())
    if odd := odd or [name for name in source if source[name].shape != target[name].shape]:
        raise IntegrityError(f"{file}: of another module (first difference: {odd[0]}); use another folder")
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _seal(state: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(state, sort_keys=True).encode())


def _verified(path: Path) -> dict[str, Any]:
    """Read state.json and check every file against it."""
    advice = f"delete {path} to go back to the checkpoint before it"
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        seal = state.pop("seal")
    except (OSError, ValueError, KeyError, AttributeError):
        raise IntegrityError(f"{path / 'state.json'}: unreadable; {advice}") from None
    if _seal(state) != seal:
        raise IntegrityError(f"{path / 'state.json'}: checksum mismatch; {advice}")
    for name, expected in state["xxh3"].items():
        file = path / name
        if not file.exists() or checksum(file) != expected:
            raise IntegrityError(f"{file}: missing or checksum mismatch; {advice}")
    return state


def _not_finite(what: str, index: int, loss: float, last: Path | None) -> str:
    kept = f"last good checkpoint: {last}" if last else "no checkpoint was written before"
    return f"{what}: loss ({loss}) or gradient not finite at step {index}; {kept}; lower the learning rate"
