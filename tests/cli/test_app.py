import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ajbench import __version__
from ajbench.cli.app import app
from ajbench.core import console, recipe, recipe_tree, registry
from ajbench.core.errors import AjbenchError, IntegrityError, MissingError, NumericError, UsageError
from ajbench.pipeline import catalogue
from ajbench.pipeline.results_origin import claim

STAGES = [
    *("demo", "run", "sweep", "prepare", "train-codec", "train-gen", "invert", "synth"),
    *("augment", "train-cls", "eval-cls", "eval-gen", "audit"),
]
COMMANDS = [
    *STAGES,
    "caption",
    "check-captions",
    "export",
    "tables",
    "report",
    "ls",
    "show",
    "verify",
    "doctor",
]


@pytest.fixture
def ajbench(tmp_path, monkeypatch):
    """ajbench(*arguments) -> result with exit_code, stdout and stderr, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AJBENCH_WORK", raising=False)
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    console.configure()
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def document(ajbench):
    """document(*arguments) -> the JSON document of a command that succeeds."""

    def read(*arguments):
        shown = ajbench(*arguments, "--json")
        assert shown.exit_code == 0, shown.output
        return json.loads(shown.stdout)

    return read


def help_of(command):
    return CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout


def examples():
    for command in COMMANDS:
        for line in re.findall(r"^ +ajbench (.+)$", help_of(command), re.MULTILINE):
            yield line.replace("'", "").split()


def test_help_names_every_command_and_the_exit_codes(ajbench):
    shown = ajbench("--help")
    assert shown.exit_code == 0
    assert set(COMMANDS) <= set(re.findall(r"^  ([a-z-]+) ", shown.stdout, re.MULTILINE))
    assert {"0", "1", "2", "3", "4", "5", "130"} <= set(shown.stdout.partition("Exit codes")[2].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command):
    shown = help_of(command)
    assert len(re.findall(r"^ +ajbench ", shown, re.MULTILINE)) == 2
    assert not re.search(r"\x08", shown)


@pytest.mark.parametrize("command", STAGES)
def test_every_stage_has_the_common_options(command):
    options = ("--dry-run", "--json", "--quiet", "--verbose", "--work", "--device", "--force")
    assert [option for option in options if option not in help_of(command)] == []


@pytest.mark.parametrize("arguments", [" ".join(line) for line in examples() if "DIR" not in line])
def test_examples_without_data_are_accepted(ajbench, arguments):
    command, *rest = arguments.split()
    if "--download" in rest:  # no folder is named
        assert ajbench(command, *rest).exit_code == UsageError.exit_code
    elif command in ("doctor", "ls", "show"):
        assert ajbench(command, *rest).exit_code == 0
    elif command == "verify":
        assert ajbench(command, *rest).exit_code == MissingError.exit_code
    else:
        shown = ajbench(command, *rest, "--dry-run")
        # Nothing is trained here: either a plan, or the stage that has to come first.
        needs_stage = command in ("audit", "eval-cls", "eval-gen", "train-cls", "tables", "report")
        assert shown.exit_code in ((0, MissingError.exit_code) if needs_stage else (0,)), shown.output
        assert needs_stage or not list(Path().iterdir())


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_decides(ajbench, monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert ajbench("doctor", "--help").exit_code == 0
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_version(ajbench):
    assert ajbench("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "name", [n for n in recipe_tree.shipped() if recipe.load(n).data.corpus in ("mini", "esc50")]
)
def test_shipped_recipes_dry_run(document, name, esc10_dir):
    loaded = recipe.load(name)
    where = [] if loaded.data.corpus == "mini" else ["--data", str(esc10_dir)]
    plan = document("run", name, *where, "--dry-run")
    assert plan["recipe"] == name
    assert plan["todo"] == len(plan["stages"])
    assert plan["disk_mb"] > 0
    grid = loaded.evaluate
    pools = len({loaded.generator.pool, *grid.pools})
    columns = 1 + grid.synthetic_only + len(grid.controls) + pools * len(grid.doses) * len(grid.arms)
    cells = len(grid.models) * columns * len(grid.seeds) * max(1, len(grid.folds))
    assert sum(stage["stage"] == "train-cls" for stage in plan["stages"]) == cells
    assert not list(Path().iterdir())


def test_as20k_self_dry_runs_on_a_table(document, write_wav, tmp_path):
    for number in range(3):
        write_wav(f"c/{number}.wav")
    rows = ["path,labels,split", "0.wav,Speech,train", "1.wav,Music;Speech,train", "2.wav,Music;Speech,eval"]
    (tmp_path / "c" / "clips.csv").write_text("\n".join(rows) + "\n")
    keys = "data.corpus=table", "data.subset=null", "evaluate.controls=[match_steps]"
    plan = document("run", "as20k-self", "--data", "c", "--dry-run", *keys)
    whats = [stage["what"] for stage in plan["stages"]]
    assert "ast mx+sp, as20k-self+80000G, seed 2" in whats
    assert "ast mx+sp, as20k-self mix.match_steps=80000, seed 4" in whats


def test_as20k_is_planned_from_the_lists_alone(document, ajbench):
    music, speech = "/m/04rlf", "/m/09x0r"
    clips = {
        "balanced_train": [music, speech],
        "unbalanced_train": [music, speech, f"{music},{speech}", music, speech],
        "eval": [music, speech, speech],
    }
    Path("lists").mkdir()
    for k, (name, labels) in enumerate(clips.items()):
        lines = [f'{k}bcdefghi{i:02d}, 0.000, 10.000, "{mids}"' for i, mids in enumerate(labels)]
        Path(f"lists/{name}_segments.csv").write_text("\n".join(lines) + "\n")
    small = ["evaluate.models=[{name: taltrans-small, aug: none}]", "evaluate.seeds=[0]"]
    arguments = ("run", "tables/a11", "--data", "lists", "--dry-run", *small)
    plan = document(*arguments, "--base", "as20k")
    assert (plan["pool"], plan["real"], plan["eval"]) == (7, 2, 3)
    steps = {line["what"].split(", ")[1]: line["steps"] for line in plan["cells"]}
    # 60 epochs in batches of 256, but 10 epochs in batches of 32 of all real clips
    assert steps["as20k mix.real=balanced"] == 1 and steps["as20k mix.real=all"] == 3
    assert len(steps) == 1 + 1 + 4 + 4
    own = document(*arguments, "--base", "as20k-self")
    assert (own["pool"], own["real"], own["eval"]) == (2, 2, 3)
    Path("lists/unbalanced_train_segments.csv").unlink()
    shown = ajbench(*arguments, "--base", "as20k")
    assert shown.exit_code == 3
    assert "unbalanced_train_segments.csv" in shown.stderr and "as20k-self" in shown.stderr


def test_dry_run_of_a_table_lists_cells_with_steps_disk_and_time(document):
    plan = document("run", "tables/a11", "--base", "mini", "--dry-run")
    assert [line["cell"] for line in plan["cells"]] == list(range(1, 10))
    assert plan["steps"] == sum(line["steps"] for line in plan["cells"]) == 9 * 90
    assert all(line["seconds"] > 0 and line["disk_mb"] > 0 for line in plan["cells"])
    before = [stage["stage"] for stage in plan["before"]["stages"]]
    assert before == ["prepare", "train-gen", "invert", "synth"]
    assert not list(Path().iterdir())


def test_dry_run_is_a_table_for_people(ajbench):
    shown = ajbench("run", "mini", "--dry-run")
    assert shown.stdout.splitlines()[0].split() == ["stage", "what", "state", "amount", "disk_mb"]


def test_synth_options_set_recipe_keys(document):
    stages = document("synth", "--classes", "3", "--n", "17", "--seed", "5", "--dry-run")["stages"]
    assert [stage["stage"] for stage in stages] == ["prepare", "train-gen", "invert", "synth"]
    assert stages[-1]["amount"] == "17 clips"
    same = document("synth", "synth.classes=3", "synth.n=17", "synth.seed=5", "--dry-run")
    assert same["stages"][-1]["fingerprint"] == stages[-1]["fingerprint"]
    probe = ("evaluate.probes={noise: {strength: 1.0}}", "--probe", "noise", "--dry-run")
    assert document("synth", *probe)["stages"][-1]["what"] == "noise"


def test_a_run_with_arms_lists_the_augmented_clips_with_their_size(document):
    stages = document("run", "mini", "evaluate.arms=[G, A, R]", "evaluate.pools=[]", "--dry-run")["stages"]
    (stage,) = (stage for stage in stages if stage["stage"] == "augment")
    assert stage["amount"] == f"{recipe.load('mini').synth.n} clips" and stage["disk_mb"] > 0
    whats = {stage["what"] for stage in stages}
    mixes = {f"mini+160{arm} mix.real=share=0.1" for arm in "GAR"}
    assert {f"taltrans-small none, {mix}, seed 0" for mix in mixes} <= whats


def test_augmented_clips_without_the_library_are_missing_before_any_work(ajbench, monkeypatch):
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    for arguments in (["run", "mini", "evaluate.arms=[A]"], ["run", "mini+60A"], ["augment"]):
        shown = ajbench(*arguments)
        assert shown.exit_code == 3 and not list(Path().iterdir())
        assert re.fullmatch(r"ajbench: [^\n]+ajbench\[aug\][^\n]+\n", shown.stderr), shown.stderr


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("evaluate.features=mn04", "mn04_as_mAP_432.pt"),
        ("synth.judge=mn04", "mn04_as_mAP_432.pt"),
        ("codec.name=encodec_24khz@16k", "encodec_24khz-d7cc33bc.th"),
        ("generator.text_encoder=clap", "clap"),
    ],
)
def test_missing_weights_are_told_before_any_work_and_in_a_dry_run(
    ajbench, monkeypatch, tmp_path, key, named
):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    planned = ajbench("run", "mini", key, "--dry-run")
    assert planned.exit_code == 0
    (line,) = (line for line in planned.stderr.splitlines() if line.startswith("cannot be run: "))
    assert named in line
    shown = ajbench("run", "mini", key)
    assert shown.exit_code == 3 and named in shown.stderr and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("what", "more"),
    [(["mini"], ["mn04_as_mAP_432.pt"]), (["tables/a11", "--base", "mini"], [])],  # classifiers only
)
def test_a_dry_run_tells_everything_that_is_missing(document, monkeypatch, tmp_path, what, more):
    for variable in ("AJBENCH_WEIGHTS", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    keys = "codec.name=encodec_24khz@16k", "generator.text_encoder=clap", "evaluate.features=mn04"
    missing = document("run", *what, *keys, "--dry-run")["missing"]
    for name in ("encodec_24khz-d7cc33bc.th", "clap-htsat-unfused", *more):
        assert sum(name in one for one in missing) == 1


def test_a_plan_from_label_tables_tells_that_the_clips_are_missing(document, audioset_dir):
    plan = document("run", "as20k-self", "codec.name=tiny", "--data", audioset_dir, "--dry-run")
    assert sum(str(audioset_dir) in one for one in plan["missing"]) == 1


def test_a_seed_means_the_same_clips_in_every_command(document):
    def synth(*arguments):
        stages = document(*arguments, "--dry-run")["stages"]
        return {stage["fingerprint"] for stage in stages if stage["stage"] == "synth"}

    for seed in ((), ("--seed", "3")):
        assert synth("run", "mini", *seed) >= synth("eval-gen", "--recipe", "mini", *seed)
    assert synth("eval-gen", "--recipe", "mini") != synth("eval-gen", "--recipe", "mini", "--seed", "3")


def test_a_dry_run_tells_a_full_disk(ajbench, monkeypatch):
    monkeypatch.setattr("ajbench.pipeline.stage.free_mb", lambda folder: 1.0)
    assert re.search(
        r"^cannot be run: .* 1 MB free", ajbench("run", "mini", "--dry-run").stderr, re.MULTILINE
    )


def test_work_folder_comes_from_the_environment(document, monkeypatch, tmp_path):
    monkeypatch.setenv("AJBENCH_WORK", str(tmp_path / "elsewhere"))
    plan = document("prepare", "--dry-run")
    assert plan["stages"][0]["path"].startswith(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ("run esc1O", 2, ["'esc1O'", "'esc10'"]),
        ("run mini mix.aplha=0.3", 2, ["mix.aplha", "'alpha'"]),
        ("run mini evaluate.doses=[9999]", 2, ["evaluate.doses", "9999", "synth.n="]),
        ("run mini alpha", 2, ["'alpha'"]),
        ("train-cls --recipe mini+9999G", 2, ["mix.dose", "9999"]),
        ("train-cls --recipe mini+9999A", 2, ["mix.dose", "9999"]),
        ("run mini evaluate.arms=[G,B]", 2, ["evaluate.arms.1", "'A+G'", "'B'"]),
        ("run mini evaluate.arms=[]", 2, ["evaluate.arms"]),
        ("run esc10", 2, ["--data"]),
        ("run esc10 --data nowhere", 3, ["nowhere"]),
        ("synth --probe nosie", 2, ["--probe nosie", "none"]),
        ("synth --classes 527 --n 80000", 2, ["synth.classes=527", "mini has 16"]),
        ("synth", 3, ["ajbench prepare"]),
        ("eval-cls", 3, ["ajbench run mini"]),
        ("eval-gen", 3, ["ajbench synth"]),
        ("tables", 3, ["rows.csv"]),
        ("report", 3, ["ajbench run mini"]),
        ("verify nowhere", 3, ["nowhere"]),
        ("score-listening nowhere.json", 3, ["nowhere.json"]),
        ("run tables/a11", 2, ["--base"]),
        ("run tables/a11 --base mini --cell 10", 2, ["--cell 10", "9"]),
        ("run tables/a11 --base mini --cell 1", 3, ["ajbench prepare"]),
        ("run tables/a8 --base mini", 2, ["data.video"]),
        ("run tables/t1 --base mini --cell 7", 2, ["--cell 7", "tables/t1"]),
        ("run tables/a8 --base mini-av --cell 25", 2, ["--cell 25", "18"]),
        ("train-av --recipe mini-av fusion.scorer=minilmm", 2, ["fusion.scorer", "minilm"]),
        ("train-av --recipe mini-av", 3, ["ajbench prepare"]),
        ("score-av --recipe mini-av", 3, ["ajbench train-av"]),
        ("train-cls --recipe as20k-self --data .", 3, ["balanced_train_segments.csv"]),
        ("run mini --generator nowhere", 3, ["--generator nowhere"]),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(ajbench, arguments, code, named):
    shown = ajbench(*arguments.split())
    assert shown.exit_code == code, shown.output
    assert shown.stdout == ""
    assert re.fullmatch(r"ajbench: [^\n]+\n", shown.stderr), shown.stderr
    assert [part for part in named if part not in shown.stderr] == []
    assert not list(Path().iterdir())


@pytest.mark.parametrize("arguments", ["ls modles", "run", "synth --n 0", "nothing", "run mini -x"])
def test_wrong_usage_exits_with_2(ajbench, arguments):
    assert ajbench(*arguments.split()).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (MissingError("x"), 3),
        (NumericError("x"), 4),
        (IntegrityError("x"), 5),
        (AjbenchError("x"), 1),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 3),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard"), 3),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "work"), 3),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes"
            ),
            3,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), 3),
    ],
)
def test_what_fails_inside_a_command_has_its_exit_code(ajbench, monkeypatch, error, code):
    def fail(kind):
        raise error

    monkeypatch.setattr(catalogue, "listing", fail)
    shown = ajbench("ls", "models")
    assert shown.exit_code == code
    assert re.fullmatch(r"ajbench: [^\n]+\n", shown.stderr)


def test_a_bug_keeps_its_traceback():
    code = (
        "from ajbench.cli.app import app\n"
        "from ajbench.pipeline import catalogue\n"
        "catalogue.listing = lambda kind: 1 / 0\n"
        "app(['ls', 'models'])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert found.returncode == 1
    assert "Traceback" in found.stderr
    assert "ZeroDivisionError" in found.stderr


@pytest.mark.parametrize("kind", ["recipes", "corpora", "codecs", "encoders", "features", "metrics"])
def test_ls(ajbench, document, kind):
    entries = document("ls", kind)
    tables = {"corpora": registry.CORPORA, "codecs": registry.CODECS, "encoders": registry.TEXT_ENCODERS}
    tables |= {"features": registry.FEATURES, "recipes": recipe_tree.shipped()}
    assert {entry["name"] for entry in entries} >= set(tables.get(kind, []))
    described = [entry[key] for entry in entries for key in ("description", "meaning") if key in entry]
    assert all(len(text) > 3 for text in described)
    assert len(ajbench("ls", kind).stdout.splitlines()) == len(entries) + 1


def test_ls_models_counts_parameters(document):
    sizes = {entry["name"]: entry["parameters"] for entry in document("ls", "models")}
    assert set(sizes) == set(registry.CLASSIFIERS)
    assert round(sizes["taltrans"] / 1e6, 1) == 12.1  # the paper's figure
    assert 86e6 < sizes["ast"] < 88.2e6


def test_show_prints_the_merged_recipe(ajbench, document, tmp_path):
    text = ajbench("show", "esc10+320G", "synth.guidance=3").stdout
    tree = yaml.safe_load(text)
    assert (tree["mix"]["dose"], tree["synth"]["guidance"], tree["data"]["subset"]) == (320, 3.0, "esc10")
    assert document("show", "esc10+320G", "synth.guidance=3") == tree
    (tmp_path / "esc10.yaml").write_text(text)
    assert yaml.safe_load(ajbench("show", "esc10.yaml").stdout) == tree


def test_doctor(ajbench, document):
    found = document("doctor")
    assert found["ajbench"] == __version__
    assert found["versions"]["torch"] and found["codec"]
    assert found["threads"] >= 1 and found["memory_gb"] > 0.5
    assert "versions.torch" in ajbench("doctor").stdout


def test_tables_are_made_again_from_rows_alone(document):
    from ajbench.core.rows import Context, append_rows, make_row

    def row(run, value):
        context = Context(run, "mini", run, "", "mini fold 5")
        return make_row(context, "A11", "taltrans-small/-/none", "mini", "map", value, n=8, seed=0)

    out = Path("results/mini")
    append_rows(out / "rows.csv", [row("old", 0.25)])
    append_rows(out / "rows.csv", [row("new", 0.5)])
    assert document("tables")["table_a11"][0]["mini"] == 50.0
    # A run that pinned the older rows gets its own table again.
    (out / "run.json").write_text(json.dumps({"fingerprints": ["old"], "counts": None}))
    assert document("tables")["table_a11"][0]["mini"] == 25.0
    assert (out / "table_a11.csv").exists()


def test_a_table_of_a_recipe_in_a_file_shares_its_results(ajbench, tmp_path):
    (tmp_path / "my.yaml").write_text("extends: mini\n")
    results = tmp_path / "results"
    claim(results / "my", tmp_path / "my.yaml", None)
    more = "--results", str(results), "--dry-run"
    assert ajbench("run", "tables/a11", "--base", str(tmp_path / "my.yaml"), *more).exit_code == 0
    assert ajbench("run", str(tmp_path / "my.yaml"), *more).exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "my.yaml").write_text("extends: mini\n")
    shown = ajbench("run", str(tmp_path / "other" / "my.yaml"), *more)
    assert shown.exit_code == 2 and "holds results of recipe" in shown.stderr
