"""Synthetic clips from elsewhere: where their labels and parents come from, and which are left out."""

import numpy as np
import pytest
from fakes import hum_record, hum_store, write_clip

from ajbench.core.errors import UsageError
from ajbench.data.corpora.recordings import HELD_OUT, LISTED
from ajbench.data.external_clips import ClassNames, read
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row

LABELS = LabelSet(("Dog", "Sea waves", "Waves", "Rain"), ("/m/1", "/m/2", "/m/3", "/m/4"))
REAL = Manifest(
    [Row("a/one", "a/one.wav"), Row("a/two", "a/two.wav", split="eval"), Row("v", "v.wav", split="val")],
    LABELS,
)


def labels(found):
    return {row.clip_id: row.labels for row in found.manifest.rows}


def left_out(found):
    return {problem.clip_id: problem.reason for problem in found.manifest.problems}


@pytest.fixture
def write(tmp_path, rng):
    """write(names, table) -> the folder with a noise for each name and perhaps metadata.csv."""

    def make(*names, table=None):
        for name in names:
            write_clip((tmp_path / name).parent, (tmp_path / name).name, rng.normal(0, 0.1, 8000))
        if table:
            (tmp_path / "metadata.csv").write_text(table)
        return tmp_path

    return make


def test_classes_are_found_as_words():
    names = ClassNames(LABELS)
    assert [names.find(text) for text in ("dog", "sea_waves", "/m/4", " SEA-WAVES ", "wolf")] == [
        "Dog", "Sea waves", "Rain", "Sea waves", None,
    ]  # fmt: skip
    assert names.inside("dog 3") == ["Dog"] and names.inside("00-sea_waves-v2") == ["Sea waves"]
    assert names.inside("dog and rain") == ["Dog", "Rain"] and names.inside("dogs") == []


def test_labels_of_folders_at_any_depth_or_of_file_names(write):
    found = read(write("dog/x/1", "train/Sea Waves/1", "rain_7", "rain dog", "wolf/9", "nothing"), REAL)
    assert labels(found) == {"dog/x/1": ("Dog",), "train/Sea Waves/1": ("Sea waves",), "rain_7": ("Rain",)}
    assert {*left_out(found)} == {"rain dog", "wolf/9", "nothing"}
    assert "wolf" in left_out(found)["wolf/9"] and "3 left out" in found.found
    assert found.clips.names == [row.clip_id for row in found.manifest.rows]
    assert all(row.source == "synthetic" and row.split == "train" for row in found.manifest.rows)


def test_labels_are_found_where_those_of_the_real_clips_are(write):
    found = read(
        write("dog_rain_1", "rain_2", "dog/rain_3", "wolf_4", "dog 5"), REAL, label_from="^([a-z]+)_"
    )
    expected = {"dog_rain_1": "Dog", "rain_2": "Rain", "dog/rain_3": "Rain", "dog 5": "Dog"}
    assert labels(found) == {name: (label,) for name, label in expected.items()}
    assert {*left_out(found)} == {"wolf_4"}


def test_a_table_has_labels_and_parents(write):
    table = (
        "file_name,label,parent_id\n1.wav,Rain;dog,a/one\n2.wav,rain,two.wav\n3.wav,wolf,\n5.wav,rain,v\n"
        "6.wav,rain,stranger\n6.wav,dog,\n7.wav,rain,\n"
    )
    found = read(write(*"123456", table=table), REAL)
    assert labels(found) == {"1": ("Rain", "Dog"), "2": ("Rain",), "6": ("Rain", "Dog")}
    parents = {row.clip_id: row.parent_id for row in found.manifest.rows}
    assert parents == {"1": "a/one", "2": "a/two", "6": None} and found.strangers == 1
    audited = parents | {"6": "stranger"}  # whose recording the audit may know
    assert [audited[name] for name in found.clips.names] == list(found.clips.parents)
    problems = left_out(found)
    assert {*problems} == {"3", "4", "5", None}
    assert "wolf" in problems["3"] and "metadata.csv" in problems["4"] and "7.wav" in problems[None]


def test_clips_made_from_real_clips_that_are_left_out_are_left_out(write):
    problems = [
        Problem("cut", "audio/cut 7.wav", None, f"{reason} (r, clip v)", "train")
        for reason in (HELD_OUT, LISTED)
    ]
    table = "file_name,label,parent_id\n1.wav,rain,cut\n2.wav,rain,cut 7.wav\n3.wav,rain,a/one\n"
    folder = write(*"123", table=table)
    for problem in problems:
        found = read(folder, Manifest(REAL.rows, LABELS, [problem]))
        assert {*labels(found)} == {"3"} and problem.reason in left_out(found)["1"]
        assert {*left_out(found)} == {"1", "2"}
    other = Problem("cut", "audio/cut 7.wav", None, "damaged", "train")
    assert {*labels(read(folder, Manifest(REAL.rows, LABELS, [other])))} == {"1", "2", "3"}


def test_another_table_may_be_named(write, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "labels.csv"
    other.write_text("path,labels\n1.wav,dog\n")
    assert labels(read(write("1", table="file_name,label\n1.wav,rain\n"), REAL, other)) == {"1": ("Dog",)}


@pytest.mark.parametrize("cell", ['"[Rain, Dog]"', "Rain|Dog", "Rain;Dog"])
def test_labels_are_written_as_in_other_tables(write, cell):
    assert labels(read(write("1", table=f"file_name,label\n1.wav,{cell}\n"), REAL)) == {"1": ("Rain", "Dog")}


def test_every_beginning_has_the_class_proportions(write):
    found = read(write(*(f"{name}/{k}" for name in ("dog", "rain") for k in range(8))), REAL)
    first = [row.labels[0] for row in found.manifest.rows[:8]]
    assert 3 <= first.count("Dog") <= 5
    sets = zip(found.clips.names, found.clips.files, strict=True)
    assert all(str(file).endswith(f"{name}.wav") for name, file in sets)


def test_a_store_has_labels_and_parents(tmp_path):
    store = hum_store(tmp_path / "store", [hum_record(i, parent_id="a/one") for i in range(6)])
    real = Manifest(REAL.rows, LabelSet(tuple(store.meta.labels)))
    found = read(tmp_path / "store", real)
    assert len(found) == 6 and {*found.clips.parents} == {"a/one"}
    wave, _ = found.clips.samples(2)
    place = store.clip_ids.index(found.clips.names[2])
    np.testing.assert_array_equal(wave[:, 0], store.audio([place])[0])
    hum_store(tmp_path / "some", [hum_record(0), hum_record(1), hum_record(2, labels=[], label_ids=[])])
    assert left_out(read(tmp_path / "some", real)) == {"clip-2": "no label"}
    with pytest.raises(UsageError, match="--synthetic-labels"):
        read(tmp_path / "store", real, tmp_path / "table.csv")


def test_clips_without_a_known_class_are_refused_by_name(write):
    with pytest.raises(UsageError, match="wolf") as refused:
        read(write("wolf/1", "wolf/2"), REAL)
    assert "Sea waves" in str(refused.value)


def test_numbers_in_names_are_no_classes():
    digits = LabelSet.from_names("0123")
    names = ClassNames(digits)
    assert names.inside("gen_3.wav") == [] and names.find("3") == "3"
