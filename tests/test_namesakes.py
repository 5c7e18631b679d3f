import numpy as np
import pytest

from ajbench.corpora.audioset import label_set
from ajbench.namesakes import ESC50, class_logits, columns_of

THEIRS, MIDS = ["Dog", "Rain", "Bell"], ["/m/d", "/m/r", "/m/b"]


def plain(columns):
    return [places.tolist() for places in columns]


def test_classes_are_found_by_name_else_by_machine_id_else_not_at_all():
    assert plain(columns_of(["Bell", "Dog"], None, THEIRS, MIDS)) == [[2], [0]]
    assert plain(columns_of(["hound", "Rain"], ["/m/d", "/m/r"], THEIRS, MIDS)) == [[0], [1]]
    assert columns_of(["hound"], None, THEIRS, MIDS) is None
    assert columns_of(["hound"], ["/m/x"], THEIRS, MIDS) is None
    assert columns_of(["hound"], ["/m/d"], THEIRS, None) is None


def test_categories_of_esc50_are_found_by_what_is_akin_to_them():
    tagger = label_set()
    found = columns_of(["dog", "rain", "clock_tick"], None, tagger.names, tagger.mids)
    assert [[tagger.names[i] for i in places] for places in found] == [
        ["Dog", "Bark"],
        ["Rain"],
        ["Tick", "Tick-tock", "Clock"],
    ]
    assert columns_of(["dog", "mouse_click"], None, tagger.names, tagger.mids) is None
    assert columns_of(["dog"], None, THEIRS, MIDS) is None  # which has no Bark


def test_every_class_akin_is_audiosets_and_stands_for_one_category():
    akin = [name for names in ESC50.values() for name in names]
    assert set(akin) <= set(label_set().names)
    assert len(akin) == len(set(akin))


def test_of_several_outputs_the_highest_counts():
    logits = np.array([[1.0, 5.0, 2.0, 4.0], [3.0, 0.0, -1.0, 9.0]])
    columns = [np.array([2, 0]), np.array([3]), np.array([1])]
    assert class_logits(logits, columns) == pytest.approx(np.array([[2.0, 4.0, 5.0], [3.0, 9.0, 0.0]]))
