"""What `eval-gen` is told of clips, and what it tells of single clips, curves and people."""

import csv
import json

import numpy as np
import pytest
from commanded import eval_gen, untrained
from fakes import SMALL_LABELS, make_store
from six_kinds import KINDS, PLAIN, Ear, N, fill, heard, measure, sets, values, write
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.annotations import asked_of, captions_of
from ajbench.data.clip_set import open_set
from ajbench.evaluation import compare, generation_metrics, per_clip


@pytest.fixture
def folders(tmp_path):
    fill(tmp_path)
    return tmp_path


# Labels and captions


def test_labels_are_of_a_store_a_table_or_folders(folders, tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", captions=True)
    clips = open_set(store.path, "eval")
    asked = asked_of(clips)
    assert list(asked.names) == list(SMALL_LABELS)
    assert asked.targets(clips.names).tolist() == (store.targets()[store.split_indices("eval")] > 0).tolist()
    assert captions_of(clips)[clips.names[0]][0].endswith("nearby, recording 12")
    plain = open_set(make_store(tmp_path / "plain").path)
    assert captions_of(plain) is None
    texts = ["a bear", *[None] * (len(plain) - 1)]
    monkeypatch.setattr(type(plain), "captions", lambda self: texts)
    said = rf"captions of {len(plain) - 1} of {len(plain)} clips of .*plain; give --captions"
    with pytest.raises(UsageError, match=said):
        compare.compare(plain, plain, Ear(), PLAIN, tmp_path / "c", metrics=["clap_score"])
    monkeypatch.undo()
    gen = sets(folders)[0]
    assert asked_of(gen) is None and captions_of(gen) is None
    assert asked_of(gen, "parent").labels["dog/clip-1"] == ["dog"]
    table = folders / "labels.csv"
    table.write_text("\n".join(["clip,labels", *(f"{name},wind; {name[:3]}" for name in gen.names)]))
    assert asked_of(gen, str(table)).labels["dog/clip-1"] == ["wind", "dog"]
    assert asked_of(gen, str(table)).names == sorted({"wind", *(name[:3] for name in gen.names)})


def test_what_does_not_tell_of_every_clip_is_refused(folders):
    gen = sets(folders)[0]
    table = folders / "some.csv"
    table.write_text("clip,labels,caption\ndog/clip-1,dog,a dog\ndog/clip-7,,\n")
    with pytest.raises(UsageError, match=r"--labels .*nothing of 23 of 24 clips \(bell/clip-0, "):
        asked_of(gen, str(table))
    with pytest.raises(UsageError, match=r"--captions .*nothing of 23 of 24 clips"):
        captions_of(gen, table)
    table.write_text("name,text\nx,y\n")
    with pytest.raises(UsageError, match="columns name, text; clip and labels are needed"):
        asked_of(gen, str(table))
    with pytest.raises(MissingError, match="no such file"):
        asked_of(gen, str(folders / "none.csv"))
    write(folders / "gen" / "top.wav", 1)
    with pytest.raises(UsageError, match="'top' lies in no folder"):
        asked_of(open_set(folders / "gen"), "parent")


# Single clips, curve


def test_single_clips_have_their_scores_and_the_worst_are_named(folders):
    found = measure(folders, metrics=["kl", "agreement", "precision", "clap_score", "lsd"], clips=True)
    lines = {line["gen"]: line for line in found.clips}
    assert len(lines) == N and lines["dog/clip-1"]["ref"] == "dog/clip-1"
    for metric in ("kl", "precision", "clap_score", "lsd"):
        assert np.mean([line[metric] for line in found.clips]) == pytest.approx(values(found)[metric])
    ranks = np.array([line["rank"] for line in found.clips])
    assert np.mean(ranks == 1) == pytest.approx(values(found)["agreement"])
    worst = per_clip.worst(found.clips, 3)
    assert set(worst) == {"kl", "rank", "clap_score", "lsd", "distance"}
    for name, falling in (("kl", True), ("clap_score", False), ("distance", True)):
        ordered = sorted((line[name] for line in found.clips), reverse=falling)[:3]
        assert [one["value"] for one in worst[name]] == ordered
        assert all(lines[one["gen"]][name] == one["value"] for one in worst[name])
    x, y = (one.features.astype(float) for one in heard(folders))
    place = sets(folders)[0].names.index(worst["distance"][0]["gen"])
    distances = np.linalg.norm(x[place] - y, axis=1)
    assert worst["distance"][0]["value"] == pytest.approx(distances.min(), rel=1e-6)
    assert worst["distance"][0]["ref"] == sets(folders)[1].names[distances.argmin()]


def test_the_curve_goes_from_few_clips_to_all_and_on(folders):
    found = measure(folders, metrics=["fd", "fd_inf"], curve=True)
    *own, last = found.curve
    assert [line["n"] for line in own] == [3, 6, 12, 24] and last["n"] == "inf"
    assert own[-1]["fd"] == pytest.approx(values(found)["fd"], rel=1e-9) and own[-1]["low"] is None
    assert last["fd"] == values(found)["fd_inf"] and own[0]["fd"] > own[2]["fd"] > last["fd"]
    assert all(line["low"] < line["fd"] < line["high"] for line in own[:-1])
    slope = (own[1]["fit"] - last["fit"]) * 6
    assert own[3]["fit"] == pytest.approx(last["fit"] + slope / 24, rel=1e-9)


# The command


def test_the_command_writes_rows_clips_and_curve(folders):
    command = [*eval_gen(folders, untrained(folders / "judge", KINDS, 4_000), "5"), "--json", "-q"]
    written = ["--out", "rows.csv", "--clips", "clips.csv", "--curve", "fd.svg"]
    written = [str(folders / one) if "." in one else one for one in written]
    wanted = ["--metrics", "all", "--labels", "parent", "--worst", "2"]
    done = CliRunner().invoke(app, [*command, *wanted, *written])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    named = {row["metric"] for row in shown["rows"]}
    assert named == set(generation_metrics.METRICS) - {"fad", "clap_score"}
    assert {row["of"] for row in shown["rows"]} == {"", *KINDS}
    assert len(shown["worst"]["reference"]["kl"]) == 2 and shown["curve"][-1]["n"] == "inf"
    with (folders / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(shown["rows"]) and all(line["definition"] for line in lines)
    with (folders / "clips.csv").open() as file:
        assert [line["gen"] for line in csv.DictReader(file)] == sets(folders)[0].names
    assert "FD∞" in (folders / "fd.svg").read_text()
    assert CliRunner().invoke(app, [*command, *written[2:4]]).exit_code == 2  # it is there
    for kind, begin in (("png", b"\x89PNG"), ("csv", b"features,n,draws,fd")):
        path = folders / f"fd.{kind}"
        assert CliRunner().invoke(app, [*command, "--curve", str(path)]).exit_code == 0
        assert path.read_bytes().startswith(begin)
    for wrong in (["--curve", "fd.pdf"], ["--metrics", "agreement"], ["--metrics", "clap_score"]):
        refused = CliRunner().invoke(app, [*command, *wrong])
        assert refused.exit_code == 2 and len(refused.stderr.strip().splitlines()) == 1, refused.output


def test_what_people_see_has_definitions_and_no_rows_by_class(folders):
    command = eval_gen(folders, untrained(folders / "judge", KINDS, 4_000), "5")
    command += ["--worst", "1", "--labels", "parent"]
    done = CliRunner().invoke(app, [*command, "--metrics", "fd,agreement"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", "fd", "agreement"]
    assert "covariances over n-1" in lines[1]
    assert "6 rows by class" in done.stderr and "reference: worst by rank: " in done.stderr
