"""Odd inputs of audit and eval-gen: repeated clips, partly shared names, long clips."""

import pytest
from fakes import write_clip
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError
from ajbench.data.clip_set import open_set
from ajbench.evaluation.audit import audit_sets


@pytest.fixture
def invoke():
    """invoke(*arguments) -> result of an ajbench command."""
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    console.configure()


def split_with_copies(root, waves, copies, gain):
    """Write 30 eval and 40 train clips, `copies` of them eval clips, and 20 synthetic ones, 3 of them too."""
    held_out, other, made = waves(0, 30), waves(30, 40), waves(70, 20)
    for k, wave in enumerate(held_out):
        write_clip(root / "eval", f"e{k}", wave)
    for k, wave in enumerate(other):
        write_clip(root / "train", f"t{k}", gain * held_out[k] if k < copies else wave)
    for k, wave in enumerate(made):
        write_clip(root / "synth", f"s{k}", held_out[29 - k] if k < 3 else wave)
    return [open_set(root / name) for name in ("synth", "train", "eval")]


@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_train_clips_that_repeat_eval_clips_are_reported_and_do_not_calibrate(tmp_path, mini_waves, gain):
    found = audit_sets(*split_with_copies(tmp_path, mini_waves, 15, gain))
    pairs = {one.clip: one.match for one in found.of("split") if one.kinds != ("near",)}
    assert pairs == {f"t{k}": f"e{k}" for k in range(15)}
    leaks = {one.clip: one.match for one in found.of("leak") if one.kinds != ("near",)}
    assert leaks == {f"s{k}": f"e{29 - k}" for k in range(3)}
    for calibration in found.calibrations:  # copies stand out by 20 and more
        assert calibration.threshold < 18
    assert [len(one.real) for one in found.calibrations] == [25, 15]


def test_an_audit_that_cannot_be_calibrated_says_so(tmp_path, mini_waves, invoke):
    with pytest.raises(MissingError, match="train"):
        audit_sets(*split_with_copies(tmp_path, mini_waves, 30, 0.8)[:2], open_set(tmp_path / "eval"))
    sets = [part for name in ("synth", "train", "eval") for part in (f"--{name}", tmp_path / name)]
    done = invoke("audit", *sets)
    assert done.exit_code == 3 and done.stderr.count("\n") <= 3 and "such as t" in done.stderr


def test_strict_fails_where_train_repeats_eval(tmp_path, mini_waves, invoke):
    split_with_copies(tmp_path, mini_waves, 2, 1.0)
    for k in range(3):  # no leak of synthetic clips
        (tmp_path / "synth" / f"s{k}.wav").unlink()
    sets = [part for name in ("synth", "train", "eval") for part in (f"--{name}", tmp_path / name)]
    assert invoke("audit", *sets).exit_code == 0
    done = invoke("audit", *sets, "--strict")
    assert done.exit_code == 4 and "t0 and e0" in done.stderr


def test_repeated_eval_clips_leave_no_copy_in_the_calibration(tmp_path, mini_waves):
    sets = split_with_copies(tmp_path, mini_waves, 2, 1.0)
    write_clip(tmp_path / "eval", "e0-again", mini_waves(0)[0])
    found = audit_sets(*sets[:2], open_set(tmp_path / "eval"))
    assert [len(one.real) for one in found.calibrations] == [38, 28]
