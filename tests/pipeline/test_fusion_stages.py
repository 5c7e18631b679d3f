"""Table A8 of a small corpus with video tokens, through all its stages."""

import csv
import itertools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from fakes import HUM_SAMPLES, free_port, join_launch, launch, reseal, video_record, video_store

from ajbench.captions import score_file
from ajbench.captions.aggregation import Scaling
from ajbench.classifiers import read_config
from ajbench.core import documents, registry
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import load
from ajbench.core.rows import read_rows
from ajbench.data.labels import load_scores
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.fusion import train as fusion
from ajbench.fusion.label_free import parts_of
from ajbench.pipeline import fusion_evaluate, fusion_stages, fusion_table
from ajbench.pipeline.cell_training import TUNE, read_tuning
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import in_order, run_stages

SMALL = (
    "data.corpus=table", "data.eval_fold=null", "data.duration_s=0.42", "data.video=tiny_video",
    "classifier.train_steps=4", "classifier.loss=ce", "classifier.batch_size=8", "classifier.specaug_time=4",
    "fusion.train_steps=8", "mix.real=all",
    "fusion.warmup_steps=2", "fusion.batch_size=8", "fusion.cross_fit=2", "fusion.width=16", "fusion.top_k=1",
    "evaluate.seeds=[0,1]", "evaluate.bootstrap=100", "synth.n=8", "evaluate.doses=[8]", "evaluate.probes={}",
)  # fmt: skip
CLIPS = 36


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A table of hums and hisses with visual captions."""
    from ajbench.data.audio import flac_decode

    folder = tmp_path_factory.mktemp("corpus")
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "path", "labels", "split", "visual_caption", "video"])
        for i in range(CLIPS):
            record = video_record(i)
            wave = flac_decode(record["audio"])
            assert len(wave) == HUM_SAMPLES
            soundfile.write(folder / record["path"], wave, 16_000)
            cells = [record[name] for name in ("clip_id", "path", "split", "visual_caption", "video")]
            writer.writerow([*cells[:2], *record["labels"], *cells[2:]])
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def pipeline(corpus, work, *overrides, table=True):
    recipe = load("tables/a8", [*SMALL, *overrides], "mini") if table else load("mini", [*SMALL, *overrides])
    return Pipeline(recipe, Places(corpus, work, work / "results"))


def prepare(recipe, data, out, *, fingerprint, **_):
    """Write the store of the corpus, with tokens as if its videos had been encoded."""
    records = [video_record(i) for i in range(CLIPS)]
    video_store(out, records, fingerprint=fingerprint)


@pytest.fixture(scope="module")
def made(corpus, work):
    """The finished Table A8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ajbench.pipeline.prepare.prepare", prepare)
        one = pipeline(corpus, work)
        fusion_stages.check(one)
        stages = fusion_stages.table_stages(one)
        run_stages(stages, "cpu")
        return one, stages, fusion_table.publish(one, fusion_stages.grid_cells(one), stages[-1])


def test_the_table_has_every_condition_and_modality_and_is_not_made_twice(made):
    one, stages, done = made
    lines = {(line["scorer"], line["labels"], line["modality"]) for line in done["lines"]}
    conditions = {
        ("", ""),
        *(("minilm", x) for x in ("predicted", "true", "constant", "shuffled", "feature")),
    }
    assert lines >= {(*names, modality) for names in conditions for modality in ("A", "V", "A+V")}
    assert ("minilm", "true", "caption+score") in lines
    assert run_stages(stages, "cpu") == []
    again = fusion_stages.table_stages(pipeline(one.places.data, one.places.work))
    assert [stage.fingerprint for stage in again] == [stage.fingerprint for stage in stages]
    rows = read_rows(one.results / "rows.csv")
    assert set(rows["table"]) == {"A8"}
    leak = rows[(rows["metric"] == "accuracy_leak") & (rows["column"] == "A+V")]
    assert leak["seed"].tolist() == ["0;1"]
    notes = " ".join(done["table"]["notes"])
    assert "lips with video: train 19 of 24 clips (5 missing)" in notes
    page = next(path for path in done["files"] if path.suffix == ".html").read_text()
    assert "data:audio/flac" in page
    assert "minilm, shuffled scores" in page


def test_intervals_over_clips_are_another_evaluation_of_the_same_models(made):
    one, stages, _ = made
    store = ClipStore.open(one.prepare.path)
    other = fusion_stages.table_stages(
        pipeline(one.places.data, one.places.work, "fusion.interval_over=clips")
    )
    assert [stage.fingerprint for stage in other[:-1]] == [stage.fingerprint for stage in stages[:-1]]
    assert other[-1].fingerprint != stages[-1].fingerprint
    assert fusion_evaluate.interval_note(store, "clips") != fusion_evaluate.interval_note(store, "recordings")
    scores = load_scores(stages[-2].path / "scores_av.npz")
    grouped = replace(scores, recordings=("one",) * len(scores.clip_ids))
    assert fusion_evaluate.units(grouped, "recordings") is grouped
    assert fusion_evaluate.units(grouped, "clips").recordings == scores.clip_ids


def test_alike_stages_are_neighbours_so_that_they_run_in_parallel(made):
    _, stages, _ = made
    names = [(stage.name, stage.what.startswith("audio tokens")) for stage in stages]
    changes = sum(a != b for a, b in itertools.pairwise(names))
    assert changes == len(set(names)) - 1
    assert all(stage.parallel for stage in stages[1:-1])


def test_train_clips_are_scored_by_models_that_were_trained_without_them(made):
    one, _, _ = made
    from ajbench.classifiers import read_config
    from ajbench.data.shards import ids_hash

    store = ClipStore.open(one.prepare.path)
    train = {store.clip_ids[i] for i in store.split_indices("train")}
    held_out = []
    for stage in fusion_stages.part_stages(one, 0):
        ids = load_scores(stage.path / "scores.npz").clip_ids
        held_out += ids
        assert read_config(stage.path)["train_ids_hash"] == ids_hash(train - set(ids))
    assert sorted(held_out) == sorted(train)


def test_scores_by_true_labels_need_no_model_and_no_seed(made):
    one, _, _ = made
    first, second = (fusion_stages.entail_stage(one, "minilm", "true", seed) for seed in (0, 1))
    assert first.fingerprint == second.fingerprint
    assert [stage.name for stage in first.needs] == ["prepare"]
    by_model = [fusion_stages.entail_stage(one, "minilm", "predicted", seed).fingerprint for seed in (0, 1)]
    assert by_model[0] != by_model[1]


def test_noisy_or_scores_need_the_audio_model_and_differ_from_their_mean(made, work):
    one, _, _ = made
    stages = [fusion_stages.entail_stage(one, "minilm", labels, 0) for labels in ("predicted", "noisy-or")]
    first, second = ([need.fingerprint for need in stage.needs] for stage in stages)
    assert first == second and len(first) == 4  # prepare, audio model, two parts
    run_stages(stages, "cpu")
    from ajbench.captions import score_file

    ids = [ClipStore.open(one.prepare.path).clip_ids[0]]
    found = [
        score_file.read(stage.path / score_file.FILE, ids, "minilm", labels).raw[0]
        for stage, labels in zip(stages, ("predicted", "noisy-or"), strict=True)
    ]
    assert found[0] != found[1]


def test_a_file_of_scores_is_used_by_its_content(made, tmp_path):
    one, _, _ = made
    ids = ClipStore.open(one.prepare.path).clip_ids

    def write(values, of=ids):
        part = score_file.ScoredClips(
            of, "llm", "predicted", np.array(values), np.array(values), Scaling(0, 1)
        )
        score_file.write(tmp_path / "s", [part])
        keys = [f"fusion.scores={tmp_path / 's'}", "fusion.scorer=llm"]
        return pipeline(one.places.data, one.places.work, *keys, table=False)

    first = write([0.5] * CLIPS)
    stage = fusion_stages.cell_stage(first, first.recipe.fusion, 0)
    fusion_stages.check(first)
    run_stages([stage], "cpu")
    other = write([0.6] * CLIPS)
    assert fusion_stages.cell_stage(other, other.recipe.fusion, 0).fingerprint != stage.fingerprint
    for bad, of in (([2.0] * CLIPS, ids), ([0.5] * 3, ["x", "y", "z"])):
        odd = write(bad, of)
        with pytest.raises(IntegrityError, match=str(tmp_path / "s")):
            run_stages([fusion_stages.cell_stage(odd, odd.recipe.fusion, 0)], "cpu")


@pytest.mark.parametrize(
    ("overrides", "error", "word"),
    [
        (["data.video=none"], UsageError, r"data\.video"),
        (["fusion.scorer=minilmm"], UsageError, r"fusion\.scorer.*'minilm'"),
        (["fusion.scorers=[minilm,t6]"], UsageError, r"fusion\.scorer=t6"),
        (["fusion.scorer=bert"], MissingError, "scorer bert"),
        (["fusion.comparisons=[true,clap]"], UsageError, r"fusion\.labels=clap"),
        (["fusion.scores=nowhere"], MissingError, r"fusion\.scores"),
        (["classifier.name=head", "classifier.aug=none"], UsageError, r"classifier\.name"),
        (["mix.balanced=true", "mix.amplify=1"], UsageError, r"mix\.amplify=1"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    corpus, tmp_path, monkeypatch, overrides, error, word
):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(error, match=word):
        fusion_stages.check(pipeline(corpus, tmp_path, *overrides))
    assert not [*tmp_path.iterdir()]


def test_clips_without_visual_captions_are_told_before_any_work(corpus, tmp_path):
    table = tmp_path / "clips.csv"
    lines = list(csv.DictReader(corpus.open()))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in lines[0] if name != "visual_caption"])
        writer.writeheader()
        for line in lines:
            del line["visual_caption"]
            writer.writerow(line | {name: corpus.parent / line[name] for name in ("path", "video")})
    one = pipeline(table, tmp_path / "w")
    with pytest.raises(MissingError, match=r"visual caption.*fusion\.captions"):
        fusion_stages.check(one, fusion_stages.conditions(one.recipe))
    fusion_stages.check(one, [one.recipe.fusion.model_copy(update={"scorer": "none"})])


def test_a_file_without_the_scores_of_a_line_is_refused_before_any_work(corpus, tmp_path):
    values, file = np.full(2, 0.5), tmp_path / "s"
    part = score_file.ScoredClips(("a", "b"), "minilm", "true", values, values, Scaling(0, 1))
    score_file.write(file, [part])
    one = pipeline(corpus, tmp_path / "work", f"fusion.scores={file}", "fusion.labels=true")
    fusion_stages.check(one, [one.recipe.fusion])
    with pytest.raises(MissingError, match=r"minilm/predicted.*minilm/true"):
        fusion_stages.check(one, fusion_stages.conditions(one.recipe))
    assert not (tmp_path / "work").exists()


def test_a_held_out_part_trains_the_fusion_on_tokens_of_a_model_without_it(corpus, work):
    p = pipeline(corpus, work, "fusion.audio_init=held_out", "fusion.scorer=none", table=False)
    cell = fusion_stages.cell_stage(p, p.recipe.fusion, 0)
    first, whole = fusion_stages.part_stages(p, 0)[0], fusion_stages.audio_stage(p, 0)
    needed = [stage.fingerprint for stage in in_order([cell])]
    assert first.fingerprint in needed and whole.fingerprint not in needed
    run_stages(in_order([cell]), "cpu")
    store = ClipStore.open(p.prepare.path)
    train = store.split_indices("train")
    own = [store.clip_ids[i] for i in train[parts_of(store, train, 2, 0) == 0]]
    assert read_config(cell.path)["train_ids_hash"] == ids_hash(own)
    assert {*load_scores(first.path / "scores.npz").clip_ids} == {*own}


def test_models_without_a_part_take_the_keys_that_were_chosen(corpus, work, monkeypatch):
    monkeypatch.setattr("ajbench.pipeline.prepare.prepare", prepare)
    tune = "evaluate.tune.grid={train_steps: [2, 3], lr: [1.0e-3]}"
    parts = lambda: fusion_stages.part_stages(pipeline(corpus, work, tune), 0)  # noqa: E731
    first = parts()[0]
    assert [need.name for need in first.needs] == ["prepare", "tune"]
    assert first.path not in {one.path for one in fusion_stages.part_stages(pipeline(corpus, work), 0)}
    tuning = next(need for need in first.needs if need.name == "tune")
    run_stages(in_order([tuning]), "cpu")
    found = read_tuning(tuning.path)
    shorter = next(k for k, one in enumerate(found["candidates"]) if one["steps"] == 2)
    reseal(tuning.path / TUNE, chosen=shorter)
    run_stages([first], "cpu")  # it was planned with the longest training
    assert documents.read_yaml(first.path / "recipe.yaml")["classifier"]["train_steps"] == 2
    assert [row["step"] for row in csv.DictReader((first.path / "metrics.csv").open())][-1] == "2"
    assert parts()[0].fingerprint == first.fingerprint and parts()[0].done()


def test_the_source_of_an_untrained_audio_model_counts(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.KINDS, "classifier", dict(registry.CLASSIFIERS))
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = set()
    for dropout in (0.1, 0.9):
        (tmp_path / "own_audio.py").write_text(f"def own():\n    return {dropout}\n")
        registry.register("classifier", "own", "own_audio:own")
        one = pipeline(corpus, tmp_path, "classifier.name=own", "fusion.audio_init=scratch", table=False)
        keys.add(fusion_stages.cell_stage(one, one.recipe.fusion, 0).fingerprint)
        sys.modules.pop("own_audio", None)
    assert len(keys) == 2


def av_cell(corpus, work):
    # Without dropout, which each process draws for itself, and statistics of a part of a batch.
    audio = "classifier.name=ast-tiny", "classifier.options={patchout: 0.0, depth: 1}"
    one = pipeline(corpus, work, *audio, table=False)
    return fusion_stages.cell_stage(one, one.recipe.fusion, 0)


def train_av_together(rank, processes, port, corpus, work):
    join_launch(rank, processes, port)
    scored, masked = [], fusion.evaluated_as
    fusion.evaluated_as = lambda inputs, modality: (
        scored.append(len(inputs.score)) or masked(inputs, modality)
    )
    fusion.BATCH = 4
    run_stages([stage for stage in in_order([av_cell(corpus, work)]) if stage.name != "prepare"], "cpu")
    (work / f"scored-{rank}.json").write_text(json.dumps(scored))


@pytest.mark.slow
def test_two_processes_train_the_audio_visual_model_of_one_and_share_its_scoring(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr("ajbench.pipeline.prepare.prepare", prepare)
    alone, together = (av_cell(corpus, tmp_path / name) for name in ("one", "two"))
    run_stages(in_order([alone]), "cpu")
    run_stages([stage for stage in in_order([together]) if stage.name == "prepare"], "cpu")
    launch(train_av_together, (2, free_port(), corpus, tmp_path / "two"))
    assert all(stage.done() for stage in in_order([together]))
    for name in ("scores_a.npz", "scores_v.npz", "scores_av.npz"):
        one, two = (load_scores(stage.path / name) for stage in (alone, together))
        assert one.clip_ids == two.clip_ids
        np.testing.assert_allclose(two.scores, one.scores, atol=1e-3)
    scored = [json.loads((tmp_path / "two" / f"scored-{rank}.json").read_text()) for rank in (0, 1)]
    # Of 12 clips in batches of 4, by each of three modalities.
    assert scored == [[4, 4] * 3, [4] * 3]
