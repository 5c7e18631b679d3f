"""The recipe that is made for someone's clips, through the functions and through the command line."""

import json
import re
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import load
from ajbench.data.external_clips import ExternalSource
from ajbench.pipeline import own_data
from ajbench.pipeline.data_summary import plan_lines


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(own_data, "measured_speed", lambda duration_s, classes: 1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AJBENCH_WORK", raising=False)
    console.configure()


def class_folders(root, **counts):
    for c, (name, n) in enumerate(counts.items()):
        for k in range(n):
            path = root / name / f"{name}{k}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_noise(path, [c, k])
    return root


def write_noise(path, seed, seconds=0.5):
    import numpy as np
    import soundfile

    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds)), 16_000)


def make(path, folder, **more):
    return own_data.make(path, folder / "work", folder / "results", **more)


def ajbench(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_recipe_is_named_after_the_data_and_fits_them(tmp_path):
    root = class_folders(tmp_path / "My Sounds", cat=10, dog=12)
    made = make(root, tmp_path)
    recipe = load("", tree=made.tree)
    assert recipe.name == "my-sounds" and "My Sounds" in recipe.description
    assert recipe.data.corpus == "folder" and recipe.data.duration_s == own_data.SHORTEST_S
    assert len(recipe.evaluate.seeds) >= 3 and max(recipe.evaluate.doses) == recipe.synth.n
    assert made.found["classes"] == {"dog": 12, "cat": 10}
    assert made.found["seconds"] <= made.found["budget_seconds"] == 1800
    assert any("dog: 12" in line and "22 clips" in line for line in made.lines)


def test_clips_from_elsewhere_need_no_generator(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=12)
    own, other = (make(root, tmp_path, generate=generate) for generate in (True, False))
    assert own.tree == other.tree and "generator" in own.found["parts"]
    assert {"generator", "class tokens", "synthesis"}.isdisjoint(other.found["parts"])
    assert other.found["seconds"] < own.found["seconds"]
    (plan,) = (line for line in other.lines if line.startswith("plan: "))
    assert "no generator; doses" in plan and "--synthetic" in plan


def test_what_is_found_of_clips_from_elsewhere_is_told_and_planned_with(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=12, owl=6)
    given = class_folders(tmp_path / "x", cat=3, wolf=4, dog=2)
    shown = ajbench("run", "--data", root, "--synthetic", given, "--dry-run", "--json")
    assert shown.exit_code == 0, shown.output
    told = next(line for line in shown.stderr.splitlines() if line.startswith("synthetic: "))
    assert "5 of 9 clips in 2 of 3 classes (none: owl); left out 4" in told and "such as wolf0.wav" in told
    document = json.loads(shown.stdout)
    assert document["found"]["synthetic"]["classes"] == {"cat": 3, "dog": 2}
    assert {stage["what"] for stage in document["stages"] if "+5X" in stage["what"]}
    (plan,) = (line for line in shown.stderr.splitlines() if line.startswith("plan: "))
    assert "doses 5 of the clips of --synthetic" in plan
    few, many = (
        own_data.make(root, tmp_path / "w", tmp_path / "r", generate=False, synthetic=ExternalSource(path))
        for path in (given, class_folders(tmp_path / "many", cat=40, dog=40))
    )
    assert few.found["parts"]["evaluation"] < many.found["parts"]["evaluation"]


def test_a_run_without_a_generator_keeps_its_own_sizes_unless_there_are_others(tmp_path):
    root = class_folders(tmp_path / "set", **{name: 60 for name in ("cat", "dog", "cow")})
    alone = make(root, tmp_path, budget="20m", generate=False)
    assert len(alone.tree["evaluate"]["folds"]) == 5
    own = make(root, tmp_path, budget="20m")
    assert own.tree != alone.tree and own.found["seconds"] <= 1200
    for budget in ("20m", None):
        assert make(root, tmp_path, budget=budget, generate=False).tree == alone.tree
        assert make(root, tmp_path, budget=budget).tree == own.tree
    assert make(root, tmp_path / "later", budget="20m").tree == own.tree
    # Without sizes of its own it has those of the run with a generator, whose classifiers it shares.
    assert make(root, tmp_path / "later", budget="20m", generate=False).tree == own.tree


def test_a_pattern_is_remembered_by_runs_with_and_without_a_generator(tmp_path):
    root = class_folders(tmp_path / "set", cat=30, dog=30)
    for number, first in enumerate((True, False)):
        place = tmp_path / str(number)
        given = make(root, place, patterns={"label": None, "group": r"(\d+)$"}, generate=first)
        assert given.tree["data"] == make(root, place, generate=not first).tree["data"]


@pytest.mark.parametrize("own", ["val", "mixed"])
def test_splits_of_a_table_count_more_than_its_folds(tmp_path, own):
    root = class_folders(tmp_path / "set", cat=30, dog=30)
    lines = ["path,labels,split,fold"]
    for k in range(30):
        split, fold = (
            (("train", "val", "test")[k % 3], k % 3) if own == "val" else (("train", "test")[k % 2], k % 3)
        )
        lines += [f"{label}/{label}{k}.wav,{label},{split},{fold}" for label in ("cat", "dog")]
    (root / "clips.csv").write_text("\n".join(lines))
    made = make(root, tmp_path)
    assert "eval_fold" not in made.tree["data"] and made.tree["evaluate"]["folds"] == []
    assert made.found["eval"] == (20 if own == "val" else 30)


def test_clips_that_cannot_be_used_are_told(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    (root / "cat" / "notes.txt").write_text("x")
    (root / "loose.wav").write_bytes(b"x")
    made = make(root, tmp_path)
    assert sum(made.found["left_out"].values()) == 2
    assert any(line.startswith("left out") for line in made.lines)


def test_files_that_are_not_there_are_one_reason(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    there = [f"{name}/{name}{k}.wav,{name}" for name in ("cat", "dog") for k in range(10)]
    lines = ["path,label", *there, *(f"gone/{k}.wav,cat" for k in range(12))]
    (root / "list.csv").write_text("\n".join(lines))
    made = make(root / "list.csv", tmp_path)
    assert list(made.found["left_out"].values()) == [12]
    (told,) = (line for line in made.lines if line.startswith("left out"))
    assert "12, such as gone/0.wav" in told and "gone/1.wav" not in told


def test_the_same_command_goes_on_with_the_same_sizes(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    first = make(root, tmp_path)
    monkeypatch.setattr(own_data, "measured_speed", lambda duration_s, classes: 3.0)
    assert make(root, tmp_path).tree == first.tree
    assert make(root, tmp_path, budget="30m").tree == first.tree
    larger = make(root, tmp_path, budget="3h")
    assert larger.tree != first.tree
    assert make(root, tmp_path).tree == larger.tree  # other stages continue the last run
    class_folders(root, bird=10)
    assert (
        make(root, tmp_path).tree["synth"] != larger.tree["synth"] or make(root, tmp_path).found["train"] > 16
    )


def test_two_folders_of_one_name_get_two_names(tmp_path):
    one, two = (class_folders(tmp_path / name / "clips", cat=10, dog=10) for name in "ab")
    names = [make(root, tmp_path).tree["name"] for root in (one, two, one, two)]
    assert names[0] == names[2] == "clips" and names[1] == names[3] != "clips"
    assert make(class_folders(tmp_path / "esc10", cat=9, dog=9), tmp_path).tree["name"] != "esc10"
    (tmp_path / "results" / "dogs").mkdir(parents=True)
    assert make(class_folders(tmp_path / "dogs", cat=9, dog=9), tmp_path).tree["name"] != "dogs"


def test_the_fold_to_evaluate_has_the_classes(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    lines = ["path,labels,fold"]
    for k in range(12):
        write_noise(root / f"{k}.wav", k)
        # The last fold has one class only.
        lines.append(f"{k}.wav,{'ab'[k % 2] if k < 9 else 'a'},{min(3, k // 4 + 1)}")
    (root / "clips.csv").write_text("\n".join(lines))
    made = make(root, tmp_path)
    assert made.tree["data"]["eval_fold"] in (1, 2)


@pytest.mark.parametrize("counts", [{"cat": 12}, {"cat": 1, "dog": 1}])
def test_too_few_clips_are_refused_with_what_is_needed(tmp_path, counts):
    with pytest.raises(MissingError, match=r"2 classes|fold"):
        make(class_folders(tmp_path / "set", **counts), tmp_path)


def test_a_class_of_two_clips_gets_a_run(tmp_path):
    made = make(class_folders(tmp_path / "set", cat=5, dog=5, owl=2), tmp_path)
    assert set(made.found["classes"]) == {"cat", "dog", "owl"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("20 min", 1200)]
)
def test_budgets(text, seconds):
    assert own_data.budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "1d", "-5m", "0s"])
def test_budgets_that_are_none(text):
    with pytest.raises(UsageError, match="--budget"):
        own_data.budget_seconds(text)


def test_run_without_a_recipe(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    shown = ajbench("run", "--data", root, "--dry-run", "--json", "evaluate.seeds=[0, 1, 2, 3]")
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["recipe"] == "set" and document["found"]["layout"] == "class folders"
    assert any("seed 3" in stage["what"] for stage in document["stages"])
    assert not (tmp_path / "work").exists()  # a dry run leaves nothing
    shown = ajbench("run", "--data", root, "--dry-run", "--write-recipe", tmp_path / "my.yaml")
    assert shown.exit_code == 0, shown.output
    assert yaml.safe_load((tmp_path / "my.yaml").read_text())["name"] == "set"
    written = "run", "--data", root, "--dry-run", "--write-recipe", tmp_path / "my.yaml"
    before = (tmp_path / "my.yaml").read_text()
    assert ajbench(*written).exit_code == 0, "the same recipe may be written again"
    (tmp_path / "my.yaml").write_text(f"{before}# edited\n")
    refused = ajbench(*written)
    assert refused.exit_code == 2 and "my.yaml" in refused.stderr
    assert (tmp_path / "my.yaml").read_text() == f"{before}# edited\n"
    again = ajbench("run", tmp_path / "my.yaml", "--data", root, "--dry-run", "--json")
    fingerprints = [
        [stage["fingerprint"] for stage in d["stages"] if stage["stage"] != "eval-cls"]
        for d in (document, json.loads(again.stdout))
    ]
    assert set(fingerprints[1]) < set(fingerprints[0])


def test_stages_with_data_never_mean_mini(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    shown = ajbench("prepare", "--data", root, "--json")
    assert shown.exit_code == 0, shown.output
    assert "work/set/prepare-" in json.loads(shown.stdout)["path"]
    for command in (["run", "mini"], ["prepare", "--recipe", "mini"]):
        assert ajbench(*command, "--data", root, "--dry-run").exit_code == 2


def test_tables_are_those_of_the_recipe_made_for_the_data(tmp_path):
    root, given = class_folders(tmp_path / "set", cat=10, dog=10), class_folders(tmp_path / "x", cat=4, dog=4)
    for more, name in ([], "set"), (["--synthetic", given], "set+x"):
        shown = ajbench("tables", "--data", root, *more, "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert json.loads(shown.stdout)["results"] == f"results/{name}"
    assert ajbench("tables", "--data", root).exit_code == 3  # nothing is measured yet


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "evaluate.seeds=[0]"],
        ["run", "mini", "--budget", "20m"],
        ["run", "mini", "--write-recipe", "x.yaml"],
        ["run", "set"],
        ["run", "--data", "set", "--budget", "soon"],
        ["run", "--data", "set", "--budget", "30s"],
        ["run", "--data", "set", "--base", "esc10"],
    ],
)
def test_options_that_do_not_go_together(tmp_path, arguments):
    class_folders(tmp_path / "set", cat=10, dog=10)
    shown = ajbench(*arguments, "--dry-run")
    assert shown.exit_code == 2
    assert shown.stderr.count("ajbench:") == 1


@pytest.mark.parametrize("name", ["none", "empty"])
def test_data_that_are_not_there(tmp_path, name):
    (tmp_path / "empty").mkdir()
    assert ajbench("run", "--data", tmp_path / name).exit_code == 3


@pytest.mark.usefixtures("no_workers")
def test_twelve_clips_run_to_their_report(tmp_path):
    root = class_folders(tmp_path / "twelve", cat=4, dog=4, owl=4)
    few = ["generator.train_steps=2", "invert.train_steps=1", "synth.sampler_steps=2", "evaluate.folds=[]"]
    few += ["synth.n=8", "evaluate.doses=[8]", "evaluate.synthetic_only=false", "evaluate.seeds=[0]"]
    few += [
        "classifier.train_steps=2",
        "classifier.warmup_steps=1",
        'evaluate.models=[{"name":"taltrans-small","aug":"none"}]',
    ]
    command = ["run", "--data", root, "--json", *few]
    shown = ajbench(*command)
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["ran"]
    page = (tmp_path / "results" / "twelve" / "report" / "index.html").read_text(encoding="utf-8")
    assert "twelve" in page
    assert json.loads(ajbench(*command).stdout)["ran"] == []  # the same command has nothing to do
    # Other commands are of that run, whose keys they need not repeat.
    for later in (["report"], ["eval-cls"], ["export", "generator"], ["train-gen"]):
        shown = ajbench(*later, "--data", root)
        assert shown.exit_code == 0, shown.output
    fewer = ajbench("run", "--data", root, "--dry-run")
    assert "evaluate.doses=[8]" in fewer.stderr and "200 steps" in fewer.stdout, "a run alone is the plan"
    other = class_folders(tmp_path / "elsewhere" / "twelve", cat=4, dog=4)
    shown = ajbench("run", "--data", other, "--dry-run", "--json")
    assert json.loads(shown.stdout)["recipe"].startswith("twelve-")
    written = tmp_path / "work" / "twelve" / "plan.yaml"
    shown = ajbench("run", written, "--data", other, "--dry-run")
    assert shown.exit_code == 2 and "results" in shown.stderr


@pytest.mark.parametrize(
    ("seeds", "folds", "told"), [([0], [1], True), ([0, 1], [1], True), ([0, 1], [1, 2], False)]
)
def test_seeds_that_are_too_few_for_a_verdict_are_told(seeds, folds, told):
    recipe = load("esc10", [f"evaluate.seeds={seeds}", f"evaluate.folds={folds}"])
    lines = plan_lines(recipe, {"generator": 60.0}, 600)
    assert any("--budget" in line for line in lines) is told
    given = plan_lines(recipe, {"generator": 60.0}, 600, seeds_given=True)
    assert not any("--budget" in line for line in given)


@pytest.mark.parametrize(("key", "cause"), [("", "20 needed"), ("evaluate.seeds=[0]", "3 needed")])
def test_that_there_can_be_no_verdict_is_said_before_the_stages(tmp_path, key, cause):
    for split in ("train", "test"):
        class_folders(tmp_path / "set" / split, cat=8, dog=8)
    command = ["run", "--data", tmp_path / "set", "--dry-run", *([key] if key else [])]
    shown = ajbench(*command)
    assert shown.exit_code == 0, shown.output
    (told,) = (line for line in shown.output.splitlines() if "No verdict" in line)
    assert cause in told and "remove the split" in told and "--budget" not in shown.output
    assert shown.output.index("No verdict") < shown.output.index("train-gen")


def test_what_the_command_changes_is_in_the_plan_and_its_time(tmp_path):
    root = class_folders(tmp_path / "twelve", cat=12, dog=12)
    plain, more = (
        make(root, tmp_path, budget="1h", overrides=keys)
        for keys in ((), ("mix.real=shots=2", "evaluate.arms=[G,A,A+G]", "evaluate.controls=[all_real]"))
    )
    assert more.tree == plain.tree
    classifiers = [one.found["parts"]["classifiers"] for one in (plain, more)]
    mixes = [int(re.search(r"steps on (\d+) mixes", " ".join(one.lines))[1]) for one in (plain, more)]
    assert mixes[1] > 2 * mixes[0] and classifiers[1] == pytest.approx(
        classifiers[0] * mixes[1] / mixes[0], rel=0.01
    )
    assert "which this exceeds" not in plain.lines[-1]
    long = make(root, tmp_path, overrides=["generator.train_steps=500000"])
    assert "budget 60 min, which this exceeds" in long.lines[-1]
    with pytest.raises(UsageError, match="evaluate"):
        make(root, tmp_path, overrides=["evaluate.nothing=1"])


@pytest.mark.parametrize(
    ("keys", "split", "plan"),
    [
        ([], "train 22, eval 6", "5 folds, each"),
        (["evaluate.folds=[1]"], "train 24, eval 4", "fold 1"),
        (["data.eval_fold=1"], "train 24, eval 4", "fold 1"),
        (["data.eval_fold=1", "evaluate.folds=[5]"], "train 22, eval 6", "fold 5"),
    ],
)
def test_the_plan_names_the_folds_that_are_run(tmp_path, keys, split, plan):
    for fold in range(1, 6):
        class_folders(tmp_path / "set" / f"fold{fold}", cat=3 - (fold == 1), dog=3 - (fold == 1))
    shown = ajbench("run", "--data", "set", "--dry-run", "--budget", "60m", *keys)
    if len(keys) == 2:
        assert shown.exit_code == 2 and "evaluate.folds=[1]" in shown.stderr
        return
    assert shown.exit_code == 0, shown.output
    assert f"split: {split};" in shown.stderr and f"plan: evaluate {plan}; " in shown.stderr
    stores = [line for line in shown.stdout.splitlines() if line.startswith("prepare")]
    assert len(stores) == (1 if keys else 5)


def test_a_fold_that_is_not_evaluated_is_refused(tmp_path):
    class_folders(tmp_path / "set", cat=10, dog=10)
    several = "evaluate.folds=[2,3]", "data.eval_fold=2"
    for command in (["run", "--data", "set"], ["run", "mini"], ["eval-cls"], ["report"]):
        shown = ajbench(*command, *several, "--dry-run")
        assert shown.exit_code == 2 and "evaluate.folds=[2]" in shown.stderr, shown.output


def test_a_time_that_is_unknown_is_said_to_be(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    made = make(root, tmp_path, overrides=["generator.preset=full"])
    assert "unknown for generator.preset=full" in made.lines[-1] and "ajbench estimate" in made.lines[-1]
    assert made.found["seconds"] is None and made.found["parts"]["generator"] is None


def kept_run(root, folder, *keys):
    made = make(root, folder)
    made.keep(load("", keys, tree=made.tree), "last_run.yaml", keys)
    return made


def test_later_commands_take_the_recipe_of_the_last_run_and_their_own_keys_on_top(tmp_path):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    plan = kept_run(root, tmp_path, "synth.n=8", "evaluate.seeds=[0,1]", "evaluate.doses=[8]")
    later = make(root, tmp_path, again=True, overrides=["synth.n=9"])
    recipe = load("", ["synth.n=9"], tree=later.tree)
    assert (recipe.synth.n, recipe.evaluate.seeds, recipe.evaluate.doses) == (9, (0, 1), (8,))
    assert "9 synthetic clips" in " ".join(later.lines) and "last_run.yaml" in later.lines[-1]
    plain = make(root, tmp_path)
    assert plain.tree == plan.tree and "evaluate.seeds=[0,1]" in plain.lines[-1]
    other = make(root, tmp_path, last="last_run_synthetic.yaml", again=True)
    assert other.tree == plan.tree, "runs with clips from elsewhere are apart"
    class_folders(root, bird=10)
    assert make(root, tmp_path, again=True).tree["evaluate"]["seeds"] != [0, 1], "a recipe is of its clips"


OTHER, FOLD_3 = ("--data", "set", "--work", "w"), "data.eval_fold=3"
KEPT = "'evaluate.folds=[]' 'evaluate.seeds=[0,1]'"
SEEDS = "generator.seed=3 invert.seed=3 synth.seed=3"


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (["report", "--data", "set"], f"run --data set {KEPT}"),
        (["eval-cls", "--data", "set", "synth.n=99"], f"run --data set {KEPT} synth.n=99"),
        (["invert", "--data", "set", "synth.n=99"], "prepare --data set synth.n=99"),
        (["export", "out", *OTHER, FOLD_3], f"train-gen {' '.join(OTHER)} {FOLD_3}"),
        (["audit", *OTHER], f"synth {' '.join(OTHER)} data.eval_fold=1"),
        (["export", "out", "--clips", "synthetic", "--seed", "3"], f"synth {SEEDS}"),
        (["eval-cls", "--recipe", "mini+8G"], "run mini+8G"),
    ],
)
def test_what_is_missing_is_named_with_a_command_that_works(tmp_path, command, first):
    root = class_folders(tmp_path / "set", cat=10, dog=10)
    kept_run(root, tmp_path, *shlex.split(KEPT))
    shown = ajbench(*command)
    assert shown.exit_code == 3, shown.output
    hint = re.search("first run `ajbench (.*)`", shown.stderr)[1]
    assert hint == first
    assert ajbench(*shlex.split(hint), "--dry-run").exit_code == 0


@pytest.mark.parametrize(
    ("arms", "generate"),
    [
        ("", False),
        ("evaluate.arms=[X]", False),
        ("evaluate.arms=[X,G]", True),
        ("evaluate.arms=[X,A+G]", True),
    ],
)
def test_a_generator_beside_given_clips_takes_time_too(tmp_path, monkeypatch, arms, generate):
    asked = []

    def made(*_, **how):
        asked.append((how["generate"], *how["overrides"]))
        raise UsageError("enough")

    monkeypatch.setattr(own_data, "make", made)
    root, given = class_folders(tmp_path / "set", cat=10, dog=10), class_folders(tmp_path / "x", cat=4, dog=4)
    ajbench("run", "--data", root, "--synthetic", given, "--dry-run", *([arms] if arms else []))
    assert asked == [(generate, *([arms] if arms else []))]
