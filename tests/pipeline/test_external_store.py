"""Source X: clips from elsewhere are audited, judged, written as a store, mixed in and reported."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fakes import flip_in, mini_pipeline, prepared_store, write_external
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core.errors import IntegrityError, NumericError, UsageError
from ajbench.core.recipe import Data, Mix
from ajbench.core.sealed_json import write_sealed
from ajbench.data.audio import write
from ajbench.data.external_clips import ExternalSource, read
from ajbench.data.shards import finish, ids_hash
from ajbench.data.store import ClipStore
from ajbench.evaluation.classification import column_name
from ajbench.pipeline import changed_files, external_store, fold_stages
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.recipe_stages import Pipeline

DATA = Data(n_clips=80, duration_s=1.26)
KEYS = (
    "data.n_clips=80", "data.duration_s=1.26", "classifier.train_steps=2", "classifier.warmup_steps=1",
    "evaluate.models=[{name: taltrans-small, aug: none}]", "evaluate.doses=[8]", "evaluate.seeds=[0]",
    "evaluate.bootstrap=100",
)  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Eighty clips of `mini`."""
    return prepared_store(tmp_path_factory.mktemp("real") / "store", None, DATA)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder of other clips like the train clips of `mini`, with a table."""
    return write_external(tmp_path_factory.mktemp("made") / "other model", "eval", DATA, seed=9)


@pytest.fixture(scope="module")
def smuggled(tmp_path_factory):
    """Folder with the eval clips of `mini` in class folders, a little quieter."""
    return write_external(tmp_path_factory.mktemp("leaks") / "smuggled", "eval", DATA, table=False)


def pipeline(folder, work="work", *overrides, **source):
    keys = [*KEYS, "evaluate.arms=[X]", *overrides]
    return mini_pipeline(*keys, work=work, synthetic=ExternalSource(folder, **source))


def test_clips_become_a_store_like_the_real_one(real, made, tmp_path, tiny):
    folder = tmp_path / "clips"
    shutil.copytree(made, folder)
    shutil.copy(folder / "take 0.wav", folder / "again.wav")
    write(folder / "silent.wav", np.zeros(20_000, np.float32))
    with (folder / "metadata.csv").open("a") as table:
        table.write("again.wav,Rain,\nsilent.wav,Rain,\n")
    external = read(folder, pipeline(folder, tmp_path).manifest)
    judge = lambda waves, requested: np.array([len(ids) / 10 if ids else np.nan for ids in requested])  # noqa: E731
    how = {"fingerprint": "abc", "codec": tiny}
    store = external_store.import_clips(external, real, tmp_path / "store", judge=judge, **how)
    assert len(store) == 16 and store.meta.codec_hash == real.meta.codec_hash
    listed = pd.read_csv(tmp_path / "store" / "quarantine.csv").set_index("clip_id")["reason"]
    assert {*listed.index} == {"silent", "again"} or {*listed.index} == {"silent", "take 0"}
    assert "duplicate" in " ".join(listed) and "silent" in " ".join(listed)
    rows = {row.clip_id: row for row in external.manifest.rows}
    for clip in store:
        assert (clip.source, clip.split) == ("synthetic", "train")
        assert tuple(clip.labels) == rows[clip.clip_id].labels
        assert clip.fidelity == pytest.approx(len(clip.labels) / 10)
        original = tiny.encode(clip.audio()[None])[0]
        assert clip.codes.shape == original.shape
    again = external_store.import_clips(external, real, tmp_path / "store", **how)
    assert again.clip_ids == store.clip_ids


def test_a_silent_beginning_is_not_used(real, tmp_path, tiny, rng):
    late = np.concatenate([np.zeros(25_000, np.float32), rng.normal(0, 0.1, 9000).astype(np.float32)])
    for name, wave in (("rain 1", late), ("rain 2", late[::-1])):
        write(tmp_path / "clips" / f"{name}.wav", wave) if (tmp_path / "clips").mkdir(
            exist_ok=True
        ) is None else 0
    external = read(tmp_path / "clips", pipeline(tmp_path / "clips", tmp_path).manifest)
    store = external_store.import_clips(external, real, tmp_path / "store", fingerprint="abc", codec=tiny)
    assert store.clip_ids == ["rain 2"]


def test_what_counts_are_the_clips_and_not_their_folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    one, other = (pipeline(folder, tmp_path) for folder in (made, tmp_path / "copy"))
    assert one.external_store.fingerprint == other.external_store.fingerprint
    wave = tmp_path / "copy" / "take 1.wav"
    shutil.copy(tmp_path / "copy" / "take 2.wav", wave)
    changed = pipeline(tmp_path / "copy", tmp_path)
    assert changed.external_store.fingerprint != one.external_store.fingerprint
    assert one.results.name == "mini+other model"


def test_no_generator_is_trained_unless_its_clips_are_mixed_too(made, tmp_path):
    alone, both = pipeline(made, tmp_path), pipeline(made, tmp_path, "evaluate.arms=[X, G]")
    names = [stage.name for stage in alone.stages()]
    assert "train-gen" not in names and "synth" not in names and names.index("audit") < names.index("import")
    assert names.index("audit") < names.index("train-cls")  # a leak is found before anything is trained
    assert {"train-gen", "synth", "import"} <= {stage.name for stage in both.stages()}
    columns = {cell_key(cell, both.recipe).column for cell in grid_stages(both)}
    assert columns == {"mini", "mini" + "G", "+8G", "+8X"}
    assert alone.sets == ("X",) and both.sets[-1] == "X"


def test_a_mix_of_its_own_needs_no_clips_for_doses_that_are_not_run(made, tmp_path):
    own = pipeline(made, tmp_path, "mix.source=X", "mix.dose=8", "evaluate.doses=[500]")
    fold_stages.check(own)
    assert {cell_key(cell, own.recipe).column for cell in grid_stages(own)} == {"mini", "+8X"}


def test_more_clips_than_there_are_and_no_clips_at_all_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match=r"evaluate\.doses"):
        pipeline(made, tmp_path, "evaluate.doses=[500]").check([500])
    with pytest.raises(UsageError, match="--synthetic"):
        mini_pipeline("mix.source=X", "mix.dose=8", work=tmp_path).check()


def test_copies_of_eval_clips_are_refused_or_marked(real, smuggled, tmp_path):
    external = read(smuggled, pipeline(smuggled, tmp_path).manifest)
    for allowed in (False, True):
        out = tmp_path / f"audit-{allowed}"
        out.mkdir()
        if allowed:
            external_store.audit_clips(external, real.path, out, tmp_path / "cache", True)
            assert json.loads((out / external_store.AUDIT).read_text())["leaks"] == len(external)
        else:
            with pytest.raises(NumericError, match=r"evaluate\.folds.*--allow-leaks"):
                external_store.audit_clips(external, real.path, out, tmp_path / "cache", False)
        assert len(pd.read_csv(out / "leaks.csv")) >= len(external)
    assert column_name("mini", Mix(dose=8, source="X"), leaks=True) == "+8X (leaks)"


def test_a_store_that_was_made_for_another_fold_is_refused_or_marked(real, made, tmp_path, tiny):
    clips = pipeline(made, tmp_path).manifest
    outcome = {}
    for fold, hashed in (("this", ids_hash(real.held_out())), ("other", "0" * 16)):
        folder = tmp_path / fold
        store = external_store.import_clips(read(made, clips), real, folder, fingerprint="f", codec=tiny)
        finish(folder, store.meta.model_copy(update={"shards": [], "extra": {}, "eval_ids_hash": hashed}))
        out = tmp_path / f"audit {fold}"
        out.mkdir()
        how = read(folder, clips), real.path, out, tmp_path / "cache"
        if fold == "other":
            with pytest.raises(IntegrityError, match=r"another eval split.*--allow-leaks"):
                external_store.audit_clips(*how, False)
        external_store.audit_clips(*how, fold == "other")
        outcome[fold] = json.loads((out / external_store.AUDIT).read_text())["leaks"]
    assert outcome == {"this": 0, "other": None}


def test_a_file_that_changed_after_the_audit_is_audited_again(made, tmp_path):
    folder = tmp_path / "clips"
    shutil.copytree(made, folder)
    place = lambda: external_store.audit_stage(pipeline(folder, tmp_path)).path  # noqa: E731
    first, clips = place(), read(folder, pipeline(folder, tmp_path).manifest).clips
    first.mkdir(parents=True)
    changed_files.record(dict(zip(clips.names, clips.files, strict=True)), first)
    (first / "DONE").touch()
    os.utime(first / changed_files.READ, (0, 0))  # all files are newer: copied or touched
    assert place() == first and (first / changed_files.READ).stat().st_mtime > 1
    content = bytearray(clips.files[0].read_bytes())
    content[-1] ^= 1
    clips.files[0].write_bytes(content)
    assert place() != first


def test_an_audit_is_of_the_parents_that_are_named(made, tmp_path):
    folder = tmp_path / "clips"
    shutil.copytree(made, folder)
    table = pd.read_csv(folder / "metadata.csv")
    keys = []
    for parent in (None, "some video_120", "an eval clip's video_120"):
        table.assign(parent_id=parent).to_csv(folder / "metadata.csv", index=False)
        one = pipeline(folder, tmp_path)
        judge = one.prepare  # any stage
        audited = external_store.audit_stage(one).fingerprint
        keys.append((audited, external_store.import_stage(one, judge).fingerprint))
    audits, imports = zip(*keys, strict=True)
    assert len({*audits}) == 3 and len({*imports}) == 1, "the store has no parent outside the corpus"


def test_results_of_a_recipe_in_a_folder_are_beside_those_of_its_own_clips(made, tmp_path):
    source = ExternalSource(made)
    one = mini_pipeline(*KEYS, "evaluate.arms=[X]", work=tmp_path, results=tmp_path / "r", synthetic=source)
    recipe = one.recipe.model_copy(update={"name": "as2m/t5"})
    assert Pipeline(recipe, one.places).results == tmp_path / "r" / "as2m" / "t5+other model"


@pytest.mark.usefixtures("no_workers")
def test_the_commands_of_stages_import_external_clips(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ajbench(command, *more):
        done = CliRunner().invoke(app, [command, "--recipe", "mini", "--json", *more, *KEYS])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    ajbench("prepare")
    external, mix = ("--synthetic", str(made)), ("classifier.aug=none", "mix.dose=8", "mix.source=X")
    own = "classifier.name=taltrans-small", *mix
    ajbench("train-cls", *external, *own)
    ajbench("train-cls", *external, *own[:2])
    found = ajbench("eval-cls", *external, *own)
    assert {"mini", "+8X"} <= {row["column"] for row in found}


@pytest.mark.usefixtures("no_workers")
def test_run_from_clips_to_report(made, smuggled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = lambda folder, *more: CliRunner().invoke(  # noqa: E731
        app, ["run", "mini", "--json", "--synthetic", str(folder), *more, *KEYS]
    )
    done = run(made)
    assert done.exit_code == 0, done.output
    out = json.loads(done.stdout)
    assert "+8X" in out["table"]["header"] and "train-gen" not in " ".join(out["ran"])
    rows = pd.read_csv(tmp_path / "results" / "mini+other model" / "rows.csv")
    assert {"fd", "label_agreement"} <= {*rows.loc[rows["row"] == "X", "metric"]}
    assert rows.loc[rows["row"] == "X", "pool"].isna().all()
    store = ClipStore.open(next((tmp_path / "work" / "mini").glob("import-*")))
    assert all(0 <= score <= 1 for score in store.column("fidelity"))
    assert json.loads(run(made).stdout)["ran"] == []
    assert run(smuggled).exit_code == 4
    allowed = json.loads(run(smuggled, "--allow-leaks").stdout)
    assert "+8X (leaks)" in allowed["table"]["header"] and "repeat" in allowed["verdict"]["headline"]


@pytest.mark.parametrize("text", ["{", "[]", '{"leaks": 0}', None])
def test_a_damaged_audit_is_not_another_finding(tmp_path, text):
    audit = SimpleNamespace(name="audit", path=tmp_path, needs=(), done=lambda: True)
    stage, path = SimpleNamespace(needs=(audit,)), tmp_path / external_store.AUDIT
    write_sealed(path, {"leaks": 4, "sentences": []})
    assert external_store.audited(stage)["leaks"] == 4
    if text is None:
        flip_in(path, '"leaks": 4')
    else:
        path.write_text(text)
    with pytest.raises(IntegrityError, match=r"audit\.json: damaged"):
        external_store.audited(stage)
