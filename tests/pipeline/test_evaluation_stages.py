"""What rows of a run say about the clips that models were trained on."""

import json
import types
from dataclasses import replace

import pytest
from fakes import MINI, hum_record, hum_store, load, mini_pipeline

from ajbench.core.recipe import dump, settings_of_lines
from ajbench.core.rows import Context, make_row, read_rows
from ajbench.pipeline import evaluate, evaluation_stages
from ajbench.pipeline.classifier_stages import cell_key, grid_stages


@pytest.fixture(params=[(), ("evaluate.folds=[4]",)], ids=["own fold", "another fold"])
def pipeline(request, tmp_path):
    """A recipe with two shots of two classes; its store has 20 train clips, its generator a pool of 31."""
    keys = "mix.real=shots=2", "evaluate.controls=[all_real]", *request.param
    made = mini_pipeline(*keys, work=tmp_path)
    made.home.mkdir(parents=True)
    (one,) = made.folds
    hum_store(one.prepare.path, [hum_record(i) for i in range(30)])
    one.train_gen.path.mkdir()
    (one.train_gen.path / "generator.json").write_text(json.dumps({"train_ids": [*map(str, range(31))]}))
    return made


def test_rows_have_the_sizes_of_pool_and_real_clips_and_the_codec(pipeline, monkeypatch):
    context = Context("run", "mini", "f", "", "mini")
    (line, settings), *_ = settings_of_lines(pipeline.recipe).items()

    def measure_cells(recipe, cells, out, dataset, folds, *more):
        columns = sorted({cell_key(cell, recipe).column for cell in cells})
        mine = replace(context, dataset=dataset)
        assert more[-1] == 3
        return [make_row(mine, "A11", line, column, "map", 0.5, n=10) for column in columns]

    def measure_sets(*arguments):
        return [make_row(context, "1", "img2img", "", "fd", 5.0, n=10)], []

    monkeypatch.setattr(evaluate, "measure_cells", measure_cells)
    monkeypatch.setattr(evaluate, "measure_sets", measure_sets)
    (one,) = pipeline.folds
    stages = (
        evaluation_stages.eval_cls_stage(pipeline, grid_stages(one), jobs=3),
        evaluation_stages.eval_gen_stage(one, [""]),
    )
    for stage in stages:
        stage.path.mkdir()
        stage.do()
    found = read_rows(pipeline.home / "rows.csv").set_index("column")
    mixed = {f"+{dose}G": ("31", "4") for dose in pipeline.recipe.evaluate.doses}
    sizes = {"mini": ("", "4"), "miniG": ("31", "0"), "mini (all real)": ("", "20"), "": ("31", "4")} | mixed
    assert found[["pool", "real"]].apply(tuple, axis=1).to_dict() == sizes
    assert set(found["codec"]) == {"fake@00"}
    assert set(found["settings"][found["table"] == "A11"]) == {settings}


def test_an_evaluation_is_of_its_primary_comparison_and_its_real_clips():
    def keys(*overrides):
        made = mini_pipeline("evaluate.primary={model: 0, dose: 10}", *overrides)
        classifiers = sorted(grid_stages(made), key=lambda stage: stage.fingerprint)
        gen = evaluation_stages.eval_gen_stage(made, [""])
        return evaluation_stages.eval_cls_stage(made, classifiers).fingerprint, gen.fingerprint

    models = [f"{{name: taltrans-small, aug: {aug}}}" for aug in ("none", "mx+sp")]
    one, other = (f"evaluate.models=[{', '.join(order)}]" for order in (models, models[::-1]))
    assert keys(one)[0] != keys(other)[0], "the place of its model is another model's"
    pooled = "generator.pool=train", "synth.strength=1.0", "evaluate.features=mn04"
    few, more = (keys(*pooled, f"mix.real=shots={k}")[1] for k in (1, 2))
    assert few != more, "rows of generated clips name the number of real clips"
    cells = grid_stages(mini_pipeline("mix.real=shots=2", "evaluate.controls=[all_real]"))
    upper = [one for one in cells if one.recipe.mix.real == "all" and not one.recipe.mix.dose][:1]
    keys_of_upper, columns = set(), set()
    for overrides in (("mix.real=all",), ("mix.real=shots=2", "evaluate.controls=[all_real]")):
        made = mini_pipeline(*overrides)
        keys_of_upper.add(evaluation_stages.eval_cls_stage(made, upper).fingerprint)
        columns |= {cell_key(one, made.recipe).column for one in upper}
    assert columns == {"mini", "mini (all real)"} and len(keys_of_upper) == 2


def test_classifiers_that_were_trained_without_the_declaration_are_counted(tmp_path):
    def stage(name, *overrides):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(dump(load("mini", [*MINI, *overrides])))
        return types.SimpleNamespace(path=tmp_path / name)

    models = [f"{{name: taltrans-small, aug: {aug}}}" for aug in ("none", "mx+sp")]
    one, other = (f"evaluate.models=[{', '.join(order)}]" for order in (models, models[::-1]))
    cells = [
        stage("same", one, "evaluate.primary={model: 0, dose: 10}"),
        stage("by name", other, "evaluate.primary={model: taltrans-small+none, dose: 10}"),
        stage("another", other, "evaluate.primary={model: 0, dose: 10}"),
        stage("none"),
    ]
    declared = load("mini", [*MINI, one, "evaluate.primary={model: 0, dose: 10}"])
    assert evaluation_stages._trained_before(declared, cells) == 2
    assert evaluation_stages._trained_before(load("mini", MINI), cells) == 0
