import csv
import json
from dataclasses import replace

import pytest
from fakes import ESC10_CONTEXT, esc10_recipe, mini_pipeline
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.rows import append_rows, make_row
from ajbench.pipeline import forecast, pool_stages
from ajbench.pipeline.forecast import Rate, Site

SECONDS = {"prepare": 0.5, "train-gen": 2.0, "invert": 2.0, "synth": 3.0, "train-cls": 1.0}
HOUR = 3600


def rates(stages, seconds=SECONDS):
    known = (one for one in stages if one.name in seconds)
    return {forecast.kind(one.name, one.recipe): Rate(seconds[one.name]) for one in known}


def by_stage(stages, site):
    return {line.stage: line for line in forecast.lines(stages, rates(stages), site, "here")}


def test_clips_and_one_training_are_shared_and_classifiers_train_side_by_side(tmp_path):
    stages = mini_pipeline("evaluate.seeds=[0,1,2]", work=tmp_path).stages()
    clips = {one.name: forecast.units(one.name, one.amount, one.recipe) for one in stages}
    steps = [forecast.units(one.name, one.amount, one.recipe) for one in stages if one.name == "train-cls"]
    assert len(set(steps)) == 1 and len(steps) == 24
    one, many = by_stage(stages, Site()), by_stage(stages, Site(machines=2, gpus=8, loss=0.1))
    assert one["prepare"].wall_hours == pytest.approx(clips["prepare"] * 0.5 / HOUR)
    assert one["train-cls"].wall_hours == pytest.approx(sum(steps) / HOUR)
    assert many["prepare"].wall_hours == pytest.approx(one["prepare"].wall_hours / 16)
    assert many["train-gen"].wall_hours == pytest.approx(one["train-gen"].wall_hours / (1 + 15 * 0.9))
    assert many["train-cls"].wall_hours == pytest.approx(2 * steps[0] / HOUR)  # 24 of 16 at a time
    assert many["invert"].wall_hours == pytest.approx(one["invert"].wall_hours / (1 + 15 * 0.9))
    assert {name: line.device_hours for name, line in many.items()} == {
        name: line.device_hours for name, line in one.items()
    }
    cores = by_stage(stages, Site(machines=2, workers=3))
    assert cores["train-cls"].wall_hours == pytest.approx(4 * steps[0] / HOUR)
    assert cores["synth"].wall_hours == pytest.approx(one["synth"].wall_hours / 2)


def test_sums_name_what_is_not_known_and_cost_every_device_to_the_end(tmp_path):
    stages = mini_pipeline(work=tmp_path).stages()
    site = Site(machines=2, gpus=4)
    found = forecast.lines(stages, rates(stages), site, "here")
    sums = forecast.total(found, stages, site, price=3.0)
    assert sums["unknown"] == ["eval-cls", "eval-gen"]
    assert sums["price"] == pytest.approx(sums["hours"] * 8 * 3.0, abs=0.02)
    assert sums["hours"] == pytest.approx(sum(line.wall_hours or 0 for line in found), abs=1e-3)


def finish(stage, seconds, **changes):
    """Leave the folder of a finished stage that took so long."""
    stage.path.mkdir(parents=True)
    folder = stage.folder
    folder.start(forecast.recipes.dump(stage.recipe), 0, "cpu")
    folder.finish({"what": stage.what, "amount": stage.amount, "seconds": seconds})
    info = folder.info() | changes
    (stage.path / "run.json").write_text(json.dumps(info))


def test_rates_are_those_of_stages_with_other_sizes(tmp_path):
    pilot = mini_pipeline("synth.n=20", "classifier.train_steps=10", work=tmp_path).stages()
    trained = [one for one in pilot if one.name == "train-cls" and " none" in one.what][:3]
    for stage, seconds in zip(trained, (10.0, 20.0, 90.0), strict=True):
        finish(stage, seconds)
    synth, prepare = (next(one for one in pilot if one.name == name) for name in ("synth", "prepare"))
    finish(synth, 40.0)
    finish(prepare, 7.0, sessions=2)  # interrupted: some of it was done twice
    found = forecast.of_finished(tmp_path / "mini", "cpu")
    other = mini_pipeline("synth.n=60", "classifier.train_steps=30", work=tmp_path).stages()
    lines = {line.stage: line for line in forecast.lines(other, found, Site(), "here")}
    clips = forecast.units("synth", synth.amount, synth.recipe)
    assert found[forecast.kind("synth", synth.recipe)] == Rate(40.0 / clips)
    assert found[forecast.kind("train-cls", trained[0].recipe)] == Rate(2.0)  # the median of 1, 2 and 9
    assert forecast.kind("prepare", prepare.recipe) not in found
    assert lines["train-cls"].wall_hours is None  # the time with mx+sp is not known
    assert forecast.of_finished(tmp_path / "mini", "cuda") == {}


def test_what_a_stage_takes_to_start_is_counted_once(tmp_path):
    small = "synth.n=32", "generator.train_steps=10"
    pilot = {one.name: one for one in mini_pipeline(*small, work=tmp_path).stages() if not one.what}
    train, synth = pilot["train-gen"], pilot["synth"]
    finish(train, 15.0)
    steps = "".join(f"{step},1.0,0.1,{0.5 + step % 2}\n" for step in range(10))
    (train.path / "metrics.csv").write_text(f"step,loss,lr,seconds\n{steps}")
    finish(synth, 12.0)
    (synth.path / "timing.csv").write_text("shard,seconds,clips_per_s,process\n0,6,1,a\n1,4,1,b\n2,2,1,b\n")
    found = forecast.of_finished(tmp_path / "mini", "cpu")
    assert found[forecast.kind("train-gen", train.recipe)] == Rate(1.0, 5.0)
    assert found[forecast.kind("synth", synth.recipe)] == Rate(6.0 / 32, 6.0)  # of each of 32 clips
    large = mini_pipeline("synth.n=64", "generator.train_steps=30", work=tmp_path)
    other = [one for one in large.stages() if not one.what]  # without probes
    one, four = (
        {line.stage: line for line in forecast.lines(other, found, site, "here")}
        for site in (Site(), Site(machines=4))
    )
    assert one["train-gen"].wall_hours == pytest.approx(35.0 / HOUR)
    assert four["synth"].wall_hours == pytest.approx((6.0 + 12.0 / 4) / HOUR)
    assert four["synth"].device_hours == one["synth"].device_hours == pytest.approx(18.0 / HOUR)
    (train.path / "metrics.csv").write_text(f"step,loss,lr,seconds\n{steps[:20]}")  # of a part of the steps
    assert forecast.of_finished(tmp_path / "mini")[forecast.kind("train-gen", train.recipe)] == Rate(1.5)


def test_rates_of_a_table_are_those_of_its_recipe(tmp_path):
    table = mini_pipeline(expression="tables/a11", base="mini", work=tmp_path).stages()
    finish(next(one for one in table if one.name == "train-cls"), 10.0)
    assert len(forecast.of_finished(tmp_path / "mini")) == 1


def test_candidates_of_a_head_are_no_clips(tmp_path):
    keys = "classifier.name=head", "classifier.aug=none", "evaluate.models=[{name: head, aug: none}]"
    made = mini_pipeline(*keys, "evaluate.tune={head: {c: [0.1, 1.0]}}", work=tmp_path)
    tune, cell = (next(one for one in made.stages() if one.name == name) for name in ("tune", "train-cls"))
    assert forecast.kind("tune", tune.recipe) != forecast.kind("train-cls", cell.recipe)


@pytest.mark.parametrize(
    "text", [b"\xff", b"work,clips_per_second\na,1\n", b"work,model,precision,clips_per_second\na,b,c,fast\n"]
)
def test_another_file_of_rates_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "gpu.csv").write_bytes(text)
    with pytest.raises(UsageError, match=r"--rates .*gpu\.csv: not the CSV") as found:
        forecast.of_benchmark(tmp_path / "gpu.csv", [])
    assert "\n" not in str(found.value)


def test_rates_of_a_gpu(tmp_path):
    path = tmp_path / "gpu.csv"
    header = ["work", "model", "precision", "clips_per_second"]
    table = [
        ["training step", "generator", "bf16", "50"],
        ["training step", "generator", "bf16", "80"],
        ["training step", "generator", "fp32", "900"],
        ["training step", "taltrans-small", "bf16", "200"],
        ["synthesis, dpmsolver++ 12, strength 0.6", "", "bf16", "4"],
        ["decode", "", "", ""],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *table])
    stages = mini_pipeline("synth.sampler_steps=12", work=tmp_path).stages()
    found = forecast.of_benchmark(path, stages)
    own = {one.name: found.get(forecast.kind(one.name, one.recipe)) for one in stages}
    recipe = stages[0].recipe
    assert own["train-gen"] == Rate(recipe.generator.batch_size / 80)
    assert own["train-cls"] == Rate(recipe.classifier.batch_size / 200)
    assert own["prepare"] is None
    path.write_text("work,model,precision,clips_per_second\nall,,,\n")
    with pytest.raises(UsageError, match=r"clips_per_second"):
        forecast.of_benchmark(path, stages)
    with pytest.raises(MissingError, match=r"absent\.csv"):
        forecast.of_benchmark(tmp_path / "absent.csv", stages)


def test_the_command(tmp_path):
    arguments = ["estimate", "mini", "--work", str(tmp_path), "--machines", "3", "--json"]
    result = CliRunner().invoke(app, arguments)
    console.configure()
    document = json.loads(result.stdout)
    assert document["machines"] == 3 and document["hours"] is None and "train-cls" in document["unknown"]
    assert not [path for path in tmp_path.rglob("*") if path.name == "run.json"]
    told = CliRunner().invoke(app, [*arguments[:-1], "--price", "2"]).output
    assert "unknown" in told and "0.0 h" not in told and "price" not in told
    assert CliRunner().invoke(app, ["estimate", "tables/t1", "--base", "mini"]).exit_code == 2
    console.configure()


def test_generators_train_side_by_side_on_cores_only(tmp_path):
    stages = pool_stages.stages(mini_pipeline("evaluate.folds=[4,5]", work=tmp_path))
    one, cores, gpus = (
        by_stage(stages, Site()),
        by_stage(stages, Site(workers=2)),
        by_stage(stages, Site(gpus=1)),
    )
    for name in ("train-gen", "invert"):
        assert cores[name].wall_hours == pytest.approx(one[name].wall_hours / 2)
        assert gpus[name].wall_hours == one[name].wall_hours


def test_finished_stages_are_paid_for_too(tmp_path):
    stages = mini_pipeline(work=tmp_path).stages()
    assert forecast.spent(stages) == 0
    finish(stages[0], 1800.0)
    finish(stages[1], 900.0, processes=2)
    assert forecast.spent(stages) == pytest.approx(1.0)


def test_the_price_of_a_point_is_that_of_the_last_run(tmp_path):
    assert forecast.point_price(12.0, tmp_path, esc10_recipe()) is None
    for number, (gain, family) in enumerate(((0.5, 0.5), (0.03, 0.03))):
        context = replace(ESC10_CONTEXT, fingerprint=str(number), dataset="esc10 folds 1-5")
        values = {"map_mean": 0.5, "map_delta": gain, "map_delta_family": family}
        append_rows(
            tmp_path / "rows.csv",
            [
                make_row(context, "A11", "m/-/none", "+160G", metric, value, (0.0, 0.9), n=80, seed="0;1;2")
                for metric, value in values.items()
            ],
        )
    (tmp_path / "run.json").write_text('{"fingerprints": ["1"]}')
    assert forecast.point_price(12.0, tmp_path, esc10_recipe()) == pytest.approx((3.0, 4.0))
