"""The stage table, its fingerprints, its checks before work, and the processes that train cells."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, NumericError, UsageError
from ajbench.core.files import lock
from ajbench.core.run_dir import RunDir
from ajbench.pipeline import preflight, runner, workers
from ajbench.pipeline.recipe_stages import Pipeline, Places
from ajbench.pipeline.stage import Stage

SMALL = ("data.n_clips=40", "synth.n=20", "evaluate.doses=[10, 20]", "evaluate.seeds=[0]")


def pipeline(*overrides, expression="mini", **places):
    return Pipeline(recipe.load(expression, [*SMALL, *overrides]), Places(**places))


def fingerprints(*overrides, **more):
    stages = pipeline(*overrides, **more).stages()
    return {f"{stage.name} {stage.what}".strip(): stage.fingerprint for stage in stages}


def changed(*overrides):
    before, after = fingerprints(), fingerprints(*overrides)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


REAL = {"train-cls taltrans-small none, mini, seed 0", "train-cls taltrans-small mx+sp, mini, seed 0"}
MIXED = {
    f"train-cls taltrans-small {augmentation}, {mix}, seed 0"
    for augmentation in ("none", "mx+sp")
    for mix in ("miniG", "mini+10G", "mini+20G")
}
EVALUATIONS = {"eval-cls", "eval-gen"}


def test_a_run_holds_every_stage_in_order():
    names = [stage.name for stage in pipeline().stages()]
    order = "prepare train-gen invert synth train-cls eval-cls eval-gen"
    assert " ".join(dict.fromkeys(names)) == order
    assert set(fingerprints()) == (
        {"prepare", "train-gen", "invert", "synth", "synth noise"} | REAL | MIXED | EVALUATIONS
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mix.balanced=true", REAL | MIXED | EVALUATIONS),
        ("classifier.lr=1e-4", REAL | MIXED | EVALUATIONS),
        ("synth.strength=0.5", {"synth"} | MIXED | EVALUATIONS),
        ("synth.guidance=3", {"synth"} | MIXED | EVALUATIONS),
        ("evaluate.probes.noise.n=9", {"synth noise", "eval-gen"}),
        ("invert.train_steps=7", {"invert", "synth", "synth noise"} | MIXED | EVALUATIONS),
        ("generator.seed=1", {"train-gen", "invert", "synth", "synth noise"} | MIXED | EVALUATIONS),
        ("evaluate.bootstrap=200", EVALUATIONS),
        ("data.corpus_seed=3", set(fingerprints())),
        ("data.eval_fold=2", set(fingerprints())),
        ("description=other", set()),
    ],
)
def test_a_change_reaches_what_depends_on_it_and_nothing_else(override, expected):
    assert changed(override) == expected


def test_a_classifier_set_for_one_row_of_the_grid_is_found_by_it():
    # The cell that `train-cls` makes and the cell of the grid are one folder.
    grid = {cell.path for cell in pipeline().grid()}
    own = pipeline("classifier.name=taltrans-small", "classifier.aug=none", "mix.dose=10")
    assert own.train_cls(0).path in grid


def test_fingerprints_do_not_depend_on_where_things_lie(tmp_path, write_wav):
    for name in ("dog/a", "dog/b", "dog/c", "cat/d", "cat/e", "cat/f"):
        write_wav(f"here/{name}.wav")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    options = ("data.corpus=folder", "data.eval_fold=null")
    here = fingerprints(*options, data=tmp_path / "here", work=tmp_path / "w1")
    there = fingerprints(*options, data=tmp_path / "there", work=tmp_path / "w2", results=tmp_path / "r")
    assert here == there
    write_wav("there/cat/d.wav", rate=8_000)
    other = fingerprints(*options, data=tmp_path / "there")
    assert not set(other.values()) & set(here.values())


def test_a_plan_is_told_without_the_weights_that_its_estimate_would_need(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    made = pipeline("codec.name=encodec_24khz@16k", "data.duration_s=1.68", work=tmp_path / "work")
    told = runner.estimate(made.prepare)
    assert told["seconds"] is None and "encodec_24khz" in told["missing"]
    with pytest.raises(MissingError, match="encodec_24khz"):
        runner.run_one(made.prepare, "cpu")


def test_a_mix_expression_is_compared_with_real_clips_alone():
    def mixes(expression, *overrides):
        cells_ = pipeline(*overrides, expression=expression).grid()
        return {(cell.recipe.mix.mode, cell.recipe.mix.real, cell.recipe.mix.dose) for cell in cells_}

    assert mixes("mini+10G") == {("dose", True, 0), ("dose", True, 10)}
    assert mixes("miniG") == {("dose", True, 0), ("dose", False, 20)}
    assert mixes("mini", "mix.mode=alpha") == {("dose", True, 0), ("alpha", True, 0)}
    assert mixes("mini") == {("dose", True, 0), ("dose", False, 20), ("dose", True, 10), ("dose", True, 20)}
    assert len(mixes("mini", "evaluate.synthetic_only=false")) == 3


def test_controls_are_real_clips_alone_with_more_steps_or_through_the_codec():
    epochs = ["classifier.epochs=1", "evaluate.controls=[match_steps, through_codec]"]
    made = pipeline(*epochs, "evaluate.models=[{name: taltrans-small, aug: none}]")
    labels = [cell.label.split(", ")[1] for cell in made.grid()]
    assert labels == [
        "mini",
        "miniG",
        "mini+10G",
        "mini+20G",
        "mini mix.match_steps=20",
        "mini data.real_through_codec=true",
    ]
    found = dict(zip(labels, made.grid(), strict=True))
    assert [found[name].decoded for name in labels[:-1]] == [None] * 5
    assert found[labels[-1]].decoded == made.decoded.path
    assert found["mini mix.match_steps=20"].steps == found["mini+20G"].steps > found["mini"].steps
    assert made.decoded in made.sources()
    assert made.prepare.fingerprint == pipeline().prepare.fingerprint
    assert [s.what for s in made.with_needs(found[labels[-1]]).needs] == ["", "through codec"]
    fixed = pipeline("evaluate.controls=[match_steps]")  # where steps are the same anyhow, no column
    assert [cell.path for cell in fixed.grid()] == [cell.path for cell in pipeline().grid()]

    own = pipeline("data.real_through_codec=true", "mix.dose=10")
    assert [(cell.decoded is None, cell.recipe.mix.dose) for cell in own.grid()][:2] == [
        (True, 0),
        (False, 10),
    ]
    assert own.prepare.fingerprint == pipeline().prepare.fingerprint


def test_a_classifier_begun_from_other_weights_is_another(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = changed(f"classifier.init={tmp_path}")
    assert before == REAL | MIXED | EVALUATIONS
    first = fingerprints(f"classifier.init={tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"2")
    second = fingerprints(f"classifier.init={tmp_path}")
    assert {name for name in first if first[name] != second[name]} == REAL | MIXED | EVALUATIONS


def test_a_table_does_only_what_it_needs():
    small = [override for override in SMALL]
    made = Pipeline(recipe.load("tables/a11", small, base="mini"), Places())
    assert [stage.name for stage in made.sources()] == ["prepare", "train-gen", "invert", "synth"]
    assert [stage.name for stage in made.evaluations()] == ["eval-cls"]
    assert {cell.path for cell in made.grid()} == {cell.path for cell in pipeline().grid()}


def test_amplify_trains_on_real_clips_first():
    made = pipeline("mix.amplify=4", "mix.balanced=true")
    bases = {cell.path for cell in made.bases()}
    assert {cell.base for cell in made.grid()} == bases
    assert not bases & {cell.path for cell in made.grid()}
    assert all(cell.recipe.mix.amplify == 0 for cell in made.bases())
    assert pipeline().bases() == []


def test_every_cell_that_hears_synthetic_clips_has_their_store():
    for cell in pipeline().grid():
        assert (cell.synthetic is not None) == (cell.recipe.mix.dose > 0)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["synth.n=15"], ["evaluate.doses", "20 synthetic clips", "synth.n=15"]),
        (["mix.dose=21"], ["mix.dose", "21 synthetic clips"]),
        (["synth.classes=17"], ["synth.classes=17", "16 classes"]),
        (["data.eval_fold=6"], ["data.eval_fold=6", "folds 1 … 5"]),
        (["data.corpus=mimi"], ["data.corpus", "did you mean 'mini'"]),
        (["evaluate.models=[{name: asst, aug: none}]"], ["evaluate.models", "did you mean 'ast'"]),
        (["evaluate.probes.noise.strenght=1"], ["evaluate.probes.noise.strenght", "did you mean 'strength'"]),
        (["evaluate.probes.noise.strength=2"], ["evaluate.probes.noise.strength", "less than or equal to 1"]),
        (["codec.name=tinny"], ["codec.name", "did you mean 'tiny'"]),
        (["evaluate.features=pans"], ["evaluate.features", "allowed: "]),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, overrides, parts):
    with pytest.raises(UsageError) as caught:
        made = pipeline(*overrides, work=tmp_path / "work")
        made.check(made.recipe.evaluate.doses)
    for part in parts:
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def generator(folder, train_ids, codec="tiny"):
    folder.mkdir()
    (folder / "generator.json").write_text(json.dumps({"train_ids": train_ids, "codec": codec}))
    (folder / "unet.safetensors").write_bytes(b"weights")
    return folder


def test_a_generator_that_heard_evaluation_clips_is_refused(tmp_path):
    clips = pipeline().manifest
    train = [row.clip_id for row in clips.split("train")]
    held_out = clips.split("eval")[0].clip_id
    pipeline(generator=generator(tmp_path / "clean", train)).check()
    with pytest.raises(IntegrityError, match=f"1 of the 8 evaluation clips.*{held_out}"):
        pipeline(generator=generator(tmp_path / "leaky", [*train, held_out])).check()
    with pytest.raises(IntegrityError, match="encodec_24khz@16k"):
        pipeline(generator=generator(tmp_path / "other", train, "encodec_24khz@16k")).check()
    with pytest.raises(MissingError, match=r"generator\.json is missing"):
        pipeline(generator=tmp_path / "nowhere").check()


def test_a_given_generator_takes_the_place_of_the_trained_one(tmp_path):
    given = generator(tmp_path / "given", [])
    made = pipeline(generator=given)
    assert "train-gen" not in [stage.name for stage in made.stages()]
    before = made.synth().fingerprint
    (given / "unet.safetensors").write_bytes(b"others")
    assert pipeline(generator=given).synth().fingerprint != before


def test_corpus_identity_is_of_the_content(tmp_path, write_wav):
    def identity():
        loaded = recipe.load("mini", ["data.corpus=folder", "data.eval_fold=null"])
        return preflight.corpus_identity(Pipeline(loaded, Places(tmp_path / "c")).manifest)

    for name in ("x/1", "x/2", "x/3", "y/4", "y/5", "y/6"):
        write_wav(f"c/{name}.wav")
    first = identity()
    os.utime(tmp_path / "c/x/1.wav", (0, 0))
    assert identity() == first
    (tmp_path / "c/x/1.wav").rename(tmp_path / "c/y/1.wav")
    assert identity() != first


def stage(folder, do=lambda: None, name="prepare", **more):
    return Stage(name, recipe.load("mini"), folder, "abc", "1 clip", do, **more)


def test_a_stage_is_done_once_and_again_with_force(tmp_path):
    done = []
    one = stage(tmp_path / "one", lambda: done.append(1))
    assert one.run("cpu")
    assert not one.run("cpu")
    assert one.run("cpu", force=True)
    assert len(done) == 2
    assert one.need() == tmp_path / "one"
    assert one.folder.info()["device"] == "cpu"
    for setting, used in (("auto", "fp32"), ("bf16", "bf16")):
        assert stage(tmp_path / "one", precision=setting).run("cpu", force=True)
        assert one.folder.info()["precision"] == used


def test_a_stage_that_fails_is_not_done(tmp_path):
    def fail():
        raise NumericError("NaN")

    with pytest.raises(NumericError):
        stage(tmp_path / "one", fail).run("cpu")
    assert not stage(tmp_path / "one").done()
    assert stage(tmp_path / "one").run("cpu")


def test_a_stage_asks_for_what_it_needs_before_it_makes_anything(tmp_path):
    first = stage(tmp_path / "first")
    second = stage(tmp_path / "second", name="synth", needs=(first,))
    with pytest.raises(MissingError, match="ajbench prepare"):
        second.run("cpu")
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_do_one_stage(tmp_path):
    with lock(tmp_path / ".one.lock"), pytest.raises(MissingError, match="held by process"):
        stage(tmp_path / "one").run("cpu")


def test_those_that_share_a_stage_all_end_and_one_finishes(tmp_path):
    def do():
        # Another process, as far as files go, has done the same work meanwhile.
        assert not stage(tmp_path / "one").done()
        inner.run("cpu")

    inner = stage(tmp_path / "one", shared=True)
    assert stage(tmp_path / "one", do, shared=True).run("cpu")
    assert inner.done()
    assert inner.folder.info()["sessions"] == 2


def test_a_disk_that_is_too_small_is_refused_before_any_work(tmp_path):
    large = stage(tmp_path / "one", disk_mb=1e12)
    with pytest.raises(MissingError, match="MB needed"):
        runner.run_one(large, "cpu")
    assert not list(tmp_path.iterdir())


def test_an_absent_device_is_refused():
    torch = pytest.importorskip("torch")
    assert runner.available("cpu") == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(MissingError, match="--device mps"):
            runner.available("mps")


@dataclass(frozen=True)
class Pretend:
    """A cell that does something quick instead of training."""

    path: Path
    act: str = "write"

    @property
    def label(self):
        return self.path.name

    def stage(self):
        return stage(self.path, self.do, name="train-cls")

    def do(self):
        if self.act == "write":
            (self.path / "threads").write_text(os.environ["OMP_NUM_THREADS"])
        elif self.act == "nan":
            raise NumericError("loss is NaN at step 3")
        elif self.act == "bug":
            raise ZeroDivisionError("a bug")
        elif self.act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "slow":
            try:
                (self.path / "begun").touch()
                time.sleep(60)
            except KeyboardInterrupt:
                (self.path / "saved").touch()
                raise


def done(folder):
    return RunDir(folder, "train-cls", "abc").done()


def test_cells_are_trained_side_by_side_with_one_thread_each(tmp_path):
    made = [Pretend(tmp_path / str(number)) for number in range(5)]
    before = os.environ.get("OMP_NUM_THREADS")
    workers.train_all(made, 2, "cpu")
    assert all(done(cell.path) for cell in made)
    assert {(cell.path / "threads").read_text() for cell in made} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        ("nan", NumericError, "bad: loss is NaN at step 3"),
        ("bug", RuntimeError, "ZeroDivisionError: a bug"),
        ("die", MissingError, "code -9.*lower --jobs"),
    ],
)
def test_a_cell_that_fails_stops_the_others_after_they_have_saved(tmp_path, act, error, message):
    slow, bad = Pretend(tmp_path / "slow", "slow"), Pretend(tmp_path / "bad", act)
    with pytest.raises(error, match=message):
        workers.train_all([slow, bad], 2, "cpu")
    assert not done(slow.path)
    assert (slow.path / "saved").exists() or not (slow.path / "begun").exists()


def test_ctrl_c_reaches_every_cell_once_and_leaves_saved_state(tmp_path):
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.pipeline.test_recipe_stages import Pretend\n"
        "from ajbench.pipeline import workers\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        workers.train_all([Pretend(Path(sys.argv[2]) / name, 'slow') for name in 'ab'], 2, 'cpu')\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, str(script), str(Path(__file__).parents[2]), str(tmp_path)],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    for _ in range(600):
        if all((tmp_path / name / "begun").exists() for name in "ab"):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert all((tmp_path / name / "saved").exists() for name in "ab")
