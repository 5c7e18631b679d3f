"""The training loop: exact resume, EMA, weight averaging, stop on NaN.

All randomness (batches, dropout) is a function of the step, so a run that was killed and started again ends
with the same bits as an uninterrupted one on a CPU, with the same versions and thread count. On a GPU some
sums are added in an order that varies: there, runs agree up to rounding.
"""

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply, send_to_device
from torch import Tensor, nn

from ajbench.core import console, memory
from ajbench.core.device import Precision, resolve_precision
from ajbench.core.errors import MissingError, NumericError
from ajbench.core.files import seed_for
from ajbench.training.state import Curve, State, Watch, frozen, newest

Step = Callable[[nn.Module, Any, int], Tensor]
_AHEAD = 2  # batches prepared in advance
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
    accumulate: int = 1,
    ema_decay: float | None = None,
    average_after: Sequence[int] = (),
    validate: Callable[[nn.Module], float] | None = None,
    validate_every: int = 0,
    watch: Watch | None = None,
    clip_grad: float | None = 1.0,
    precision: Precision = "auto",
    compiled: bool = False,
    tracker: str = "csv",
    what: str = "train",
) -> nn.Module:
    """Train `module` for `steps` optimiser steps, resuming from the newest checkpoint in `folder`.

    The parameters of the optimiser are trained. Submodules whose parameters are all frozen stay in eval mode
    and are not written to checkpoints.

    Args:
        module: moved to the accelerator's device; under DDP `step` must call `module(...)` itself.
        step: (module, batch on the device, step index) → scalar loss.
        batches: pure function of an index, called in advance in one background thread. With W processes and
            A parts per step, process r asks for part p of a step as index (step · A + p) · W + r.
        lr_at: learning rate of a step, for every parameter group, times the group's `lr_ratio` if it has
            one.
        folder: receives `checkpoints/step-<n>/` (the last two) and `metrics.csv`.
        seed: seeds torch, with step, part and rank (dropout, noise drawn in `step`); the caller's RNG state
            is kept.
        accumulate: parts whose gradients are averaged before an optimiser step.
        ema_decay: return the exponential moving average; its decay grows as min(decay, (1 + n) / (10 + n)).
        average_after: return the mean of the weights after these steps, ascending (not with `ema_decay`).
        validate: module in eval mode → score, higher is better: return the weights with the best score
            instead of the last or averaged ones. With `ema_decay` the moving average is scored.
        validate_every: steps between scores.
        watch: evaluated in the first process and written to a CSV; does not change the weights.
        clip_grad: largest norm of the whole gradient; None: no limit.
        precision: fp32, or bf16 by autocast; auto: see `resolve_precision`.
        compiled: run the module through `torch.compile`.
        tracker: where loss curves go besides `metrics.csv`: csv (nowhere), tensorboard, trackio, wandb.
        what: name shown in progress and errors.

    Returns:
        The unwrapped module in eval mode.

    Raises:
        NumericError: loss or gradient is not finite; the last checkpoint is kept.
        MissingError: the tracker is not installed or does not start, or memory is so short that sums may
            differ.
        IntegrityError: a checkpoint is damaged or belongs to another module, optimiser or run length.
        KeyboardInterrupt: Ctrl-C; the current step was finished and saved.
    """
    if ema_decay is not None and average_after:
        raise ValueError("ema_decay and average_after exclude each other")
    accelerator = _accelerator(tracker, folder, what)
    device, world, rank = accelerator.device, accelerator.num_processes, accelerator.process_index
    if world > 1 and device.type == "cuda":
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    wrapped = accelerator.prepare_model(module)
    called: Any = torch.compile(wrapped) if compiled else wrapped
    state = State(module, optimizer, ema_decay, average_after, steps)
    folder.mkdir(parents=True, exist_ok=True)
    first = state.resume(folder)
    accelerator.wait_for_everyone()
    autocast = resolve_precision(precision, device.type) == "bf16"
    _train_mode(module, state)
    metrics = watched = None
    if accelerator.is_main_process:
        metrics = Curve(folder / "metrics.csv", _COLUMNS, first)
        watched = Curve(folder / watch.file, ("step", *watch.columns), first) if watch else None
    cuda = [device] if device.type == "cuda" else []
    indices = range(first * accumulate * world + rank, steps * accumulate * world, world)
    with (
        torch.random.fork_rng(cuda),
        _sigint() as interrupted,
        console.progress(steps, what, "steps") as advance,
        closing(_prefetch(batches, indices, pinned=bool(cuda))) as ahead,
    ):
        advance(first)
        for index in range(first, steps):
            memory.need_reserve()  # and before a checkpoint is kept
            started = time.perf_counter()
            lr = lr_at(index)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_ratio", 1.0)
            total = torch.zeros((), device=device)
            for part in range(accumulate):
                torch.manual_seed(seed_for(seed, "step", index, rank, *([part] if part else [])))
                # Processes exchange gradients once per step, with the last part.
                alone = world > 1 and part < accumulate - 1
                with wrapped.no_sync() if alone else nullcontext():
                    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                        batch = send_to_device(next(ahead), device, non_blocking=True)
                        loss = step(called, batch, index) / accumulate
                    accelerator.backward(loss)
                total += loss.detach()
            norm = nn.utils.clip_grad_norm_(state.parameters.values(), clip_grad or math.inf)
            value = float(accelerator.reduce(total, "mean"))
            if not (math.isfinite(value) and math.isfinite(norm.item())):
                raise NumericError(_not_finite(what, index, value, newest(folder)))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.after_step(index)
            done, stop = index + 1, interrupted()
            if validate and (done % validate_every == 0 or done == steps):
                module.eval()
                with torch.no_grad(), state.as_moving_average():
                    score = validate(module)
                    console.detail(f"{what}: step {done}, {score:.4f} on the val split")
                    if metrics:
                        state.keep_if_best(folder, done, score)
                _train_mode(module, state)
                accelerator.wait_for_everyone()
            seconds = time.perf_counter() - started
            if watch and (done % watch.every == 0 or done == steps):
                if watched:
                    module.eval()
                    cast = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
                    with torch.no_grad(), cast, state.as_moving_average():
                        seen = watch.look(module)
                    watched.add(done, *seen)
                    names = (f"{Path(watch.file).stem}/{name}" for name in watch.columns)
                    accelerator.log(dict(zip(names, seen, strict=True)), step=done)
                    _train_mode(module, state)
                accelerator.wait_for_everyone()
            if metrics:
                metrics.add(done, value, lr, f"{seconds:.4f}")
                accelerator.log({"loss": value, "lr": lr}, step=done)
                if done % checkpoint_every == 0 or done == steps or stop:
                    for curve in (metrics, watched):
                        if curve:
                            curve.flush()
                    state.save(folder, done)
                    console.detail(f"{what}: step {done} of {steps}, loss {value:.4f}, lr {lr:.2e}")
            advance(1)
            if stop:
                raise KeyboardInterrupt(f"{what}: stopped after step {done} of {steps}, which is saved")
    accelerator.wait_for_everyone()
    for used in accelerator.trackers:  # end_training() would also end the group of processes
        used.finish()
    if validate:
        state.load_best(folder)
        accelerator.wait_for_everyone()  # the caller may remove the checkpoints as soon as this returns
    else:
        state.load_average()
    return module.eval()


def _accelerator(tracker: str, folder: Path, what: str) -> Accelerator:
    """Return accelerate's view of device and processes, with a tracker of loss curves."""
    # Precision is the recipe's: `accelerate launch` would set that of the user's configuration.
    if tracker == "csv":  # metrics.csv, which is always written
        return Accelerator(mixed_precision="no")
    accelerator = Accelerator(mixed_precision="no", log_with=tracker, project_dir=folder)
    if not accelerator.log_with:  # accelerate ignores what is not installed
        raise MissingError(f"--tracker {tracker}: not installed; pip install {tracker}, or use csv")
    try:
        accelerator.init_trackers(
            "ajbench",
            config={"folder": folder.name, "what": what},
            init_kwargs={"wandb": {"dir": str(folder)}},  # like the others, not in the current folder
        )
    except Exception as error:  # every tracker has errors of its own: no key, no network, no place
        raise MissingError(f"--tracker {tracker}: {' '.join(str(error).split())[:200]}") from None
    return accelerator


def _train_mode(module: nn.Module, state: State) -> None:
    module.train()
    for part in frozen(module, state.parameters).values():
        part.eval()


def cosine(peak: float, warmup: int, steps: int, floor: float = 0.0) -> Callable[[int], float]:
    """Return lr_at: linear warm-up over `warmup` steps, then cosine decay to floor · peak at `steps`."""

    def lr_at(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        share = (step - warmup) / max(1, steps - warmup)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))

    return lr_at


def _prefetch(
    batches: Callable[[int], Any], indices: range, pinned: bool = False
) -> Generator[Any, None, None]:
    """Yield batches(i) in order; one background thread prepares the next ones.

    `pinned`: in page-locked memory, from which a GPU copies while it computes.
    """

    def prepare(index: int) -> Any:
        return recursively_apply(_pin, batches(index)) if pinned else batches(index)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(prepare, i) for i in indices[:_AHEAD])
        try:
            for i in range(len(indices)):
                batch = waiting.popleft().result()
                if i + _AHEAD < len(indices):
                    waiting.append(pool.submit(prepare, indices[i + _AHEAD]))
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _pin(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


@contextmanager
def _sigint() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag, so that a step is finished; the second raises at once."""
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


def steps_down(
    peak: float, warmup: int, per_epoch: float, start: int, every: int, factor: float
) -> Callable[[int], float]:
    """Return lr_at: linear warm-up, then decay by `factor` after epoch `start` and every `every` epochs.

    The schedule of AST, PSLA and TALtrans (MultiStepLR, stepped once per epoch); `per_epoch` is the number of
    steps in an epoch.
    """

    def lr_at(step: int) -> float:
        epochs = int(step / per_epoch + 1e-9)
        decays = 0 if epochs < start else 1 + (epochs - start) // every
        return peak * float(factor**decays) * min(1.0, (step + 1) / max(1, warmup))

    return lr_at


def last_share(steps: int, share: float) -> range:
    """Return the steps after which weights are averaged: the last `share` of all."""
    return range(steps - round(steps * share) + 1, steps + 1)


def _not_finite(what: str, index: int, loss: float, last: Path | None) -> str:
    kept = f"last good checkpoint: {last}" if last else "there is no checkpoint yet"
    return f"{what}: loss ({loss}) or gradient not finite at step {index}; {kept}; lower the learning rate"
