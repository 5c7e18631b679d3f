"""The loss of each class over the course of a training."""

import csv

import pytest
import torch
from fakes import N_TRAIN, SMALL_LABELS, FakeCodec, stopped_at

from ajbench.generation import batches, checkpoint, class_curve, textual_inversion, unet
from ajbench.generation.pipeline import AudioJourneyPipeline

from .conftest import invert


def read_curve(path):
    with (path / checkpoint.CURVE).open(newline="") as file:
        rows = csv.DictReader(file)
        return [(int(row["last_step"]), row["class"], float(row["loss"]), int(row["n"])) for row in rows]


def test_the_curve_is_the_mean_error_of_each_class_clips(generator, real, tmp_path):
    out = invert(generator, real, tmp_path / "t", train_steps=3, log_every=2, lr=1e-20)
    made = AudioJourneyPipeline.from_pretrained(generator, out, codec=FakeCodec())
    clips = real.split_indices("train")
    grids = batches.grid_reader(real, clips, FakeCodec(), made.whitening)
    batch_of = batches.noisy_batches(grids, N_TRAIN, unet.noise_schedule(), 4, 2)
    expected = []
    for last, window in ((2, (0, 1)), (3, (2,))):
        errors = {label: [] for label in SMALL_LABELS}
        for batch in map(batch_of, window):
            for row, pick in enumerate(batch["picks"].tolist()):
                labels = real[int(clips[pick])].labels
                states, _ = made.text.encode([f"The sound of {', '.join(made.tokens[n] for n in labels)}"])
                with torch.no_grad():
                    one = batch["noisy"][row : row + 1], batch["t"][row : row + 1]
                    guess = unet.denoise(made.unet, *one, states, None)
                for label in labels:
                    errors[label].append((guess[0] - batch["target"][row]).square().mean().item())
        expected += [(last, name, sum(e) / len(e), len(e)) for name, e in errors.items() if e]
    found = read_curve(out)
    assert [(*row[:2], row[3]) for row in found] == [(*row[:2], row[3]) for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-5)
    assert sum(row[3] for row in found) > 3 * 4  # clips with two classes count for both


def test_in_bf16_the_losses_are_not_rounded():
    curve, errors = class_curve.ClassCurve(2), 1 + torch.rand(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        curve.add(errors, torch.ones(8, 2))
    assert curve.sums[0] == pytest.approx(errors.mean(1).sum().expand(2), rel=1e-6)


def test_only_chosen_classes_have_a_curve(generator, real, tmp_path):
    out = invert(generator, real, tmp_path / "t", train_steps=2, classes=["Clock tick", "Dog"])
    assert {row[1] for row in read_curve(out)} == {"Dog", "Clock tick"}


# Checkpoints are written after steps 2, 4, 6 and 7; windows end with steps 3, 6 and 7.
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (textual_inversion.Inversion, "forward", 6),  # the checkpoint of step 4 has a third of a window
        (textual_inversion.ClassCurve, "write", 1),  # no checkpoint has a complete window yet
        (textual_inversion.ClassCurve, "write", 2),  # the last checkpoint is that of step 4
    ],
)
def test_an_interrupted_training_writes_the_same_bytes(
    inverted, generator, real, tmp_path, owner, name, call
):
    options = {"vectors": 2, "train_steps": 7, "log_every": 3}
    with stopped_at(owner, name, call, after=True):
        invert(generator, real, tmp_path / "cut", **options)
    assert name == "forward" or max(row[0] for row in read_curve(tmp_path / "cut")) == 3 * call
    invert(generator, real, tmp_path / "cut", **options)
    assert {row[0] for row in read_curve(tmp_path / "cut")} == {3, 6, 7}
    for file in (checkpoint.EMBEDS, checkpoint.TOKENS, checkpoint.CURVE):
        assert (inverted / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()
