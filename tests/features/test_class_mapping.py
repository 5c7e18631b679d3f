import numpy as np
import pytest

from ajbench.data.corpora.audioset import label_set
from ajbench.features.class_mapping import ESC50, class_logits, map_classes

THEIRS, MIDS = ["Dog", "Rain", "Bell"], ["/m/d", "/m/r", "/m/b"]


def plain(found):
    return [places.tolist() for places in found.columns]


def test_classes_are_found_by_name_then_by_audioset_id():
    named = map_classes(["Bell", "Dog"], None, THEIRS, MIDS)
    assert (plain(named), named.how, named.unknown) == ([[2], [0]], "by name", [])
    mixed = map_classes(["hound", "Rain"], ["/m/d", "/m/r"], THEIRS, MIDS)
    assert (plain(mixed), mixed.how) == ([[0], [1]], "1 by AudioSet id, 1 by name")
    as_named = map_classes(["/m/b"], ["/m/b"], THEIRS, MIDS)
    assert (plain(as_named), as_named.how) == ([[2]], "by AudioSet id")
    for mids, theirs in ((None, MIDS), (["/m/x"], MIDS), (["/m/d"], None)):
        found = map_classes(["hound"], mids, THEIRS, theirs)
        assert (plain(found), found.unknown, found.lacking) == ([[]], ["hound"], "1 of 1 class (hound)")


def test_categories_of_esc50_are_found_by_related_classes():
    tagger = label_set()
    found = map_classes(["dog", "Rain", "clock_tick"], None, tagger.names, tagger.mids)
    related = [["Dog", "Bark"], ["Rain"], ["Tick", "Tick-tock", "Clock"]]
    assert [[tagger.names[i] for i in places] for places in found.columns] == related
    assert found.how == "2 by related AudioSet classes, 1 by name" and not found.unknown
    lacking = map_classes(["dog", "mouse_click", "Rain"], None, tagger.names, tagger.mids)
    assert list(lacking.unknown) == ["mouse_click"]
    assert list(map_classes(["dog"], None, THEIRS, MIDS).unknown) == ["dog"]  # there is no Bark


def test_every_related_class_is_audiosets_and_stands_for_one_category():
    related = [name for names in ESC50.values() for name in names]
    assert set(related) <= set(label_set().names)
    assert len(related) == len(set(related))


def test_the_highest_of_several_logits_counts():
    logits = np.array([[1.0, 5.0, 2.0, 4.0], [3.0, 0.0, -1.0, 9.0]])
    columns = [np.array([2, 0]), np.array([3]), np.array([1])]
    assert class_logits(logits, columns) == pytest.approx(np.array([[2.0, 4.0, 5.0], [3.0, 9.0, 0.0]]))
