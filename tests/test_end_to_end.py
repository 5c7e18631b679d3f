"""One real run in a process of its own, as small as it gets; then what a second and a changed one do.

The later commands run in this process: importing torch takes longer than most of them.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.codec import tiny
from ajbench.core.files import sha256

pytestmark = pytest.mark.usefixtures("no_workers")
ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *("data.n_clips=56", "data.duration_s=1.68", "mix.real=all"),
    *("evaluate.pools=[]", "evaluate.controls=[]"),
    *("generator.train_steps=4", "generator.warmup_steps=1", "generator.batch_size=2"),
    *("invert.train_steps=2", "invert.batch_size=2"),
    *("synth.n=12", "synth.sampler_steps=3", "synth.micro_batch=4", "synth.shard_size=4"),
    *("synth.strength=0.2", "synth.guidance=1"),  # a generator of four steps makes nothing of its own
    *("classifier.train_steps=6", "classifier.warmup_steps=1", "classifier.batch_size=4"),
    "classifier.specaug_time=16",
    "evaluate={models: [{name: taltrans-small, aug: mx+sp}], doses: [6], seeds: [0, 1]}",
    "evaluate.synthetic_only=true",
    *("evaluate.bootstrap=100", "evaluate.probes={noise: {strength: 0.6, guidance: 1.0, n: 8}}"),
]
CELLS = {f"taltrans-small mx+sp, mini{mix}, seed {seed}" for mix in ("", "G", "+6G") for seed in (0, 1)}


def command(folder, *arguments):
    """Return how to start ajbench in a process of its own."""
    environment = {"PYTHONPATH": str(ROOT), "AJBENCH_WORK": str(folder / "work"), "COLUMNS": "200"}
    words = [sys.executable, "-m", "ajbench", *arguments]
    return {"args": words, "cwd": folder, "env": os.environ | environment, "text": True}


def ajbench(folder, *arguments):
    """Run ajbench in this process, in a folder, and return exit_code, stdout and stderr."""
    with contextlib.chdir(folder):
        return CliRunner().invoke(app, arguments, env={"AJBENCH_WORK": "work", "COLUMNS": "200"})


def document(folder, *arguments):
    """Return the JSON document of a command that succeeds."""
    found = ajbench(folder, *arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a run that has finished in processes of its own, and what the run said."""
    folder = tmp_path_factory.mktemp("run")
    found = subprocess.run(
        **command(folder, "run", "mini", *SMALL, "--json"), capture_output=True, timeout=900
    )
    assert found.returncode == 0, found.stderr
    return folder, json.loads(found.stdout)


def stages(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("work/mini/*/DONE")}


def test_a_run_does_every_stage_and_writes_its_files(done):
    folder, shown = done
    expected = {"prepare", "train-gen", "invert", "synth", "synth (noise)", "eval-cls", "eval-gen"}
    assert set(shown["ran"]) == expected | {f"train-cls ({cell})" for cell in CELLS}
    out = folder / "results" / "mini"
    promised = {"table_a11.csv", "table_1.csv", "generation.csv", "report/index.html"}
    assert promised <= set(shown["files"])
    assert all((out / name).stat().st_size > 0 for name in shown["files"])
    (measured,) = (line for line in table(out / "table_a11.csv") if line["source"] == "measured")
    for column in ("mini", "miniG", "+6G"):
        assert 0 <= float(measured[column]) <= 100 and measured[f"{column}_std"]
    assert float(measured["+6G_delta_low"]) <= float(measured["+6G_delta_high"])
    rows = table(out / "rows.csv")
    metrics = {"map", "auc", "dprime", "map_delta", "fd", "is", "label_agreement"}
    assert {row["metric"] for row in rows} >= metrics
    assert {row["row"] for row in rows} >= {"img2img", "noise", "pink noise", "taltrans-small/-/mx+sp"}
    assert {row["codec"] for row in rows} == {f"tiny@{sha256(tiny.WEIGHTS)[:16]}"}
    # No fingerprint but those of this run, no path of this machine.
    run = json.loads((out / "run.json").read_text())
    assert {row["fingerprint"] for row in rows} <= set(run["fingerprints"])
    assert str(folder) not in (out / "run.json").read_text() + (out / "report" / "index.html").read_text()


def test_synthetic_clips_descend_from_training_clips(done):
    from ajbench.data.store import ClipStore

    folder, _ = done
    real = ClipStore.open(next(folder.glob("work/mini/prepare-*")))
    train = {real.clip_ids[i] for i in real.split_indices("train")}
    for path in folder.glob("work/mini/synth-*"):
        assert set(ClipStore.open(path).column("parent_id")) <= train


def test_a_second_run_does_nothing_and_does_not_import_torch(done):
    folder, shown = done
    before, rows = stages(folder), (folder / "results/mini/rows.csv").read_bytes()
    code = (
        "import sys\n"
        "from ajbench.cli.app import app\n"
        "try:\n"
        f"    app({['run', 'mini', *SMALL]!r})\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code\n"
        "print('torch' in sys.modules, file=sys.stderr)\n"
    )
    call = command(folder)
    call["args"] = [sys.executable, "-c", code]
    found = subprocess.run(**call, capture_output=True, timeout=600)
    assert found.returncode == 0, found.stderr
    assert "nothing to do" in found.stderr
    assert found.stderr.splitlines()[-1] == "False"
    assert shown["table"]["lines"][0][-1] in found.stdout
    assert stages(folder) == before
    assert (folder / "results/mini/rows.csv").read_bytes() == rows


def test_a_sweep_makes_a_set_for_each_value_and_leaves_the_run_as_it_was(done):
    folder, _ = done
    before, rows = stages(folder), (folder / "results/mini/rows.csv").read_bytes()
    lines = document(folder, "sweep", "strength", "0.2,0.6", "--n", "8", *SMALL)["lines"]
    assert [line["set"] for line in lines] == ["strength=0.2", "strength=0.6"]
    assert all(line["n"] == 8 and line["fd_low"] <= line["fd"] <= line["fd_high"] for line in lines)
    written = table(folder / "results/mini/sweep_strength.csv")
    assert [float(line["fd"]) for line in written] == [line["fd"] for line in lines]
    made = stages(folder)
    assert {name: made[name] for name in before} == before
    assert len(made) == len(before) + 2  # the set at 0.6 is the probe's, and there already
    assert (folder / "results/mini/rows.csv").read_bytes() == rows


def test_a_sweep_by_gain_trains_on_every_set_and_is_resumed(done):
    folder, _ = done
    before, words = stages(folder), ["sweep", "strength", "0.2,0.6", "--by", "map", "--n", "12", *SMALL]
    known = document(folder, *words, "--dry-run")
    assert known["power"]["val_clips"] > 0 and known["synth_seconds"] > 0 and known["train_cls_seconds"] > 0
    shown = document(folder, *words)
    lines = shown["lines"]
    assert [line["set"] for line in lines] == ["strength=0.2", "strength=0.6"]
    for line in lines:
        assert line["gain_low"] <= line["gain"] <= line["gain_high"] and line["fd"] > 0
        assert line["gain"] == pytest.approx(line["map"] - shown["real_map"], abs=0.01)
    assert [one["rho"] for one in shown["correlations"]] == [None, None]
    assert shown["verdict"].startswith("strength=0.") and any("val clips" in note for note in shown["notes"])
    written = table(folder / "results/mini/sweep_strength.csv")
    assert [float(line["gain"]) for line in written] == [line["gain"] for line in lines]
    made = stages(folder)
    trained = [name for name in made if name.startswith("train-cls") and name not in before]
    assert len(trained) == 3 * 2  # real clips only and both settings, two seeds
    assert document(folder, *words) == shown and stages(folder) == made
    assert {name: made[name] for name in before} == before


def test_table_1_compares_generators_and_takes_what_is_trained(done):
    folder, _ = done
    before = stages(folder)
    generators = "evaluate.generators={plain: {mask: false}, masked: {mask: true}}"
    shown = document(folder, "run", "tables/t1", "--base", "mini", *SMALL, "synth.strength=1", generators)
    ran = [stage.split()[0] for stage in shown["ran"]]
    assert ran == ["synth", "eval-gen", "train-gen", "synth", "eval-gen"]
    assert all(line["fd_low"] <= line["fd"] <= line["fd_high"] for line in shown["lines"])
    compared = [line for line in shown["lines"] if line["model"] in ("plain", "masked")]
    assert [line["model"] for line in compared] == ["plain", "masked"]
    assert all(line["kl"] is not None for line in compared)
    lines = table(folder / "results/mini/t1/table_1.csv")
    assert {"plain", "masked", "Ours-T5"} <= {line["model"] for line in lines}
    assert {name: stages(folder)[name] for name in before} == before


def test_deleted_results_are_written_again_from_finished_stages(done):
    folder, _ = done
    path = folder / "results/mini/table_a11.csv"
    before, content = stages(folder), path.read_bytes()
    path.unlink()
    assert document(folder, "run", "mini", *SMALL)["ran"] == []
    assert path.read_bytes() == content
    assert stages(folder) == before


def test_a_changed_mix_runs_only_what_depends_on_it(done, tmp_path):
    folder, _ = done
    before = stages(folder)
    changed = [*SMALL, "mix.balanced=true", "evaluate.seeds=[0]"]
    ran = document(folder, "run", "mini", *changed, "--results", str(tmp_path))["ran"]
    assert {name.split()[0] for name in ran} == {"train-cls", "eval-cls", "eval-gen"}
    assert before.items() <= stages(folder).items()


def test_a_tail_has_few_real_clips_is_filled_alone_and_has_a_table(done, tmp_path):
    folder, _ = done
    before = stages(folder)
    tail = "mix.tail={classes: [Rain, Wind], shots: 1, fill: true}"
    changed = [*SMALL, tail, "evaluate.doses=[1]", "evaluate.seeds=[0]", "evaluate.controls=[all_real]"]
    plan = ajbench(folder, "run", "mini", *changed, "--dry-run")
    assert plan.exit_code == 0 and "tail: Rain 1, Wind 1" in plan.stderr
    shown = document(folder, "run", "mini", *changed, "--results", str(tmp_path))
    trained = [name for name in shown["ran"] if name.startswith("train-cls")]
    assert len(trained) == 2, "synthetic clips only and all real clips have been trained on before"
    assert {name: stages(folder)[name] for name in before} == before
    lines = {line["mix"]: line for line in table(tmp_path / "mini" / "table_tail.csv")}
    assert list(lines) == ["miniG", "mini", "+1G", "mini (all real)"]
    assert {line["tail"] for line in lines.values()} == {"Rain 1, Wind 1"}
    assert int(lines["mini"]["real"]) == int(lines["+1G"]["real"]) < int(lines["mini (all real)"]["real"])
    for line in lines.values():
        assert 0 <= float(line["macro_f1"]) <= 100 and 0 <= float(line["tail_recall"]) <= 100
    assert "Tail, mini (measured)" in (tmp_path / "mini" / "report" / "index.html").read_text()
    assert "Rain 1, Wind 1" in (tmp_path / "mini" / "table_a11.md").read_text()
    refused = ajbench(folder, "run", "mini", *changed, "evaluate.doses=[12]")
    assert refused.exit_code == 2 and "mix.tail.fill" in refused.stderr
    assert refused.stderr.count("ajbench: ") == 1


def test_single_stages_find_the_finished_ones(done):
    folder, _ = done
    before = stages(folder)
    for name in ("prepare", "train-gen", "invert", "synth", "eval-cls", "eval-gen"):
        found = ajbench(folder, name, *SMALL)
        assert found.exit_code == 0, found.output
    assert stages(folder) == before
    store = next(folder.glob("work/mini/synth-*"))
    assert document(folder, "verify", str(store))["state"] == "sound"


def test_an_audit_of_the_run_is_a_page_that_the_report_links_to(done):
    folder, _ = done
    assert document(folder, "audit", "--recipe", "mini", *SMALL)["counts"]["synth"] == 12
    page = folder / "results" / "mini" / "report" / "audit.html"
    assert "<svg" in page.read_text(encoding="utf-8")
    assert ajbench(folder, "report", "--recipe", "mini", *SMALL).exit_code == 0
    assert 'href="audit.html"' in page.with_name("index.html").read_text(encoding="utf-8")
    again = ajbench(folder, "audit", "--recipe", "mini", *SMALL, "--probe", "noise", "--quiet")
    assert again.exit_code == 0, again.output
    assert page.with_name("audit_noise.html").is_file()


def test_a_flipped_bit_is_found(done, tmp_path):
    folder, _ = done
    shutil.copytree(next(folder.glob("work/mini/prepare-*")), tmp_path / "store")
    shard = tmp_path / "store" / "part-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    found = ajbench(folder, "verify", str(tmp_path / "store"))
    assert found.exit_code == 5
    assert re.fullmatch(r"ajbench: .*part-00000\.arrow.*\n", found.stderr)


def test_a_dry_run_of_synthesis_estimates_its_time(done):
    folder, _ = done
    plan = document(folder, "synth", *SMALL, "synth.n=40", "--dry-run")
    assert (plan["clips"], plan["shards"]) == (40, 10)
    assert plan["seconds"] > 0 and plan["store_mb"] > 0


def test_ctrl_c_leaves_saved_state_and_exits_with_130(done):
    folder, _ = done
    long = ["generator.train_steps=100000", "generator.checkpoint_every=1"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup, whose children ignore it too
    try:
        process = subprocess.Popen(
            **command(folder, "train-gen", *SMALL, *long), stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    while not (saved := list(folder.glob("work/mini/train-gen-*/checkpoints/step-*"))):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert len(re.findall(r"^ajbench: ", said, re.MULTILINE)) == 1
    assert saved
    assert "DONE" not in [path.name for path in saved[0].parent.parent.iterdir()]


def test_a_trained_codec_can_be_used_by_a_recipe(tmp_path):
    few = ["--steps", "2", "--batch-size", "2", "--mini-clips", "6"]
    trained = ajbench(tmp_path, "train-codec", *few)
    assert trained.exit_code == 0, trained.output
    weights = Path(trained.stdout.strip(), "tiny.safetensors")
    assert weights.is_absolute() or (tmp_path / weights).exists()
    own = document(tmp_path, "prepare", *SMALL, f"codec.name={weights}", "--dry-run")
    usual = document(tmp_path, "prepare", *SMALL, "--dry-run")
    assert own["stages"][0]["fingerprint"] != usual["stages"][0]["fingerprint"]
    for stage in ("prepare", "train-gen"):
        document(tmp_path, stage, *SMALL, f"codec.name={weights}")
    (made,) = tmp_path.glob("work/mini/train-gen-*/generator.json")
    assert json.loads(made.read_text())["codec"] == str((tmp_path / weights).absolute())


def test_a_former_version_of_the_codec_can_be_used_by_a_recipe(tmp_path):
    for stage in ("prepare", "train-gen"):
        document(tmp_path, stage, *SMALL, "codec.name=tiny@ff1b92258faaad59")
    (made,) = tmp_path.glob("work/mini/train-gen-*/generator.json")
    assert json.loads(made.read_text())["codec_hash"] == "ff1b92258faaad59"
    store = next(tmp_path.glob("work/mini/prepare-*/store.json"))
    assert json.loads(store.read_text())["codec_hash"] == "ff1b92258faaad59"


def test_pools_are_compared_in_one_run_that_is_resumed(done, tmp_path):
    from ajbench.data.store import ClipStore

    folder, _ = done
    few = ["mix.real=shots=1", "evaluate.pools=[train, real]", "evaluate.synthetic_only=false"]
    words = ["run", "mini", *SMALL, *few, "--results", str(tmp_path)]
    before, shown = stages(folder), document(folder, *words)
    of_real = {f"{name} (pool real)" for name in ("train-gen", "invert", "synth", "eval-cls", "eval-gen")}
    own = {"eval-cls (pool train)", "eval-gen (pool train)", "synth (noise, pool real)"}
    assert {name for name in shown["ran"] if not name.startswith("train-cls")} == of_real | own
    assert len(shown["ran"]) == len(of_real | own) + 2 + 2 * 2, (
        "real clips only; a mix of each pool; two seeds"
    )
    lines = table(tmp_path / "mini" / "gain_by_real.csv")
    (real,) = {line["real"] for line in lines}
    pool = len(ClipStore.open(next(folder.glob("work/mini/prepare-*"))).split_indices("train"))
    assert {line["pool"] for line in lines} == {real, str(pool)} and len(lines) == 2
    (measured,) = (line for line in table(tmp_path / "mini/table_a11.csv") if line["source"] == "measured")
    (mine,) = (line for line in lines if line["pool"] == str(pool))
    assert float(measured["+6G_delta"]) == float(mine["delta"]), "the table is that of generator.pool"
    (sentence,) = shown["contrast"]
    assert f"the same {real}" in sentence and f"{pool} clips" in sentence
    assert sentence in (tmp_path / "mini" / "report" / "index.html").read_text()
    made = stages(folder)
    again = document(folder, *words)
    assert again["ran"] == [] and again["contrast"] == [sentence] and stages(folder) == made
    assert {name: made[name] for name in before} == before


def test_arms_at_the_same_dose_stand_next_to_generated_clips(done, audiomentations):
    folder, _ = done
    shown = document(folder, "run", "mini", *SMALL, "evaluate.arms=[G, A, R, A+G]", "--results", "arms")
    new = ("+6A", "+6R", "+6A+6G")
    cells = {f"train-cls (taltrans-small mx+sp, mini{mix}, seed {seed})" for mix in new for seed in (0, 1)}
    assert set(shown["ran"]) == {"augment", "eval-cls", *cells}
    rows = table(folder / "arms" / "mini" / "rows.csv")
    compared = {row["column"] for row in rows if row["metric"] == "map_delta"}
    assert compared == {"miniG", "+6G", *new}
    assert {row["column"] for row in rows if row["metric"] == "map_delta_a"} == {"+6A+6G"}
    (measured,) = (line for line in table(folder / "arms/mini/table_a11.csv") if line["source"] == "measured")
    assert all(0 <= float(measured[column]) <= 100 for column in ("+6G", *new))
    assert float(measured["+6A+6G_delta_a_low"]) <= float(measured["+6A+6G_delta_a_high"])
    assert "+6A+6G minus +6A: " in (folder / "arms/mini/table_a11.md").read_text()


def test_a_run_of_two_folds_keeps_the_clips_of_one_and_pools_both(done, tmp_path):
    folder, _ = done
    shutil.copytree(folder / "work", tmp_path / "work")
    folds = [*SMALL, "evaluate.folds=[4,5]"]
    cell = document(tmp_path, "run", "mini", *folds, "--cell", "1", "--dry-run")["stages"]
    assert [(one["what"], one["state"]) for one in cell][-1] == (
        "taltrans-small mx+sp, mini, seed 0, fold 4",
        "todo",
    )
    shown = document(tmp_path, "run", "mini", *folds)
    steps = {f"{name} (fold 4)" for name in ("prepare", "train-gen", "invert", "synth", "eval-gen")}
    # Of fold 5, only the classifiers and their judge are made again, with seeds that no other fold has.
    cells = {f"train-cls ({cell}, fold {fold})" for cell in CELLS for fold in (4, 5)}
    assert set(shown["ran"]) == steps | cells | {"synth (noise, fold 4)", "eval-gen (fold 5)", "eval-cls"}
    rows = [row for row in table(tmp_path / "results/mini/rows.csv") if row["column"] in ("mini", "+6G")]
    single = [row for row in rows if row["metric"] == "map"]
    assert {row["dataset"] for row in single} == {"mini fold 4", "mini fold 5"} and len(single) == 8
    values = {c: [float(row["value"]) for row in single if row["column"] == c] for c in ("mini", "+6G")}
    (delta,) = (row for row in rows if row["metric"] == "map_delta")
    assert float(delta["value"]) == pytest.approx((sum(values["+6G"]) - sum(values["mini"])) / 4, abs=1e-5)
    clips = {row["dataset"]: int(row["n"]) for row in single}
    assert (delta["dataset"], int(delta["n"])) == ("mini folds 4-5", sum(clips.values()))
    (line,) = (one for one in table(tmp_path / "results/mini/table_a11.csv") if one["source"] == "measured")
    assert float(line["+6G_delta"]) == pytest.approx(100 * float(delta["value"]), abs=0.006)
    assert document(tmp_path, "run", "mini", *folds)["ran"] == []
    found = ajbench(tmp_path, "run", "mini", *SMALL, "evaluate.folds=[4,9]")
    assert found.exit_code == 2 and re.fullmatch(r"ajbench: evaluate\.folds: .*\n", found.stderr)
