from collections import Counter

import numpy as np
import pytest
import soundfile
import xxhash
from fakes import SMALL_LABELS, make_store, write_envelope

from ajbench.core.errors import MissingError, UsageError
from ajbench.data import flac_hash
from ajbench.data.clip_set import Change, open_set


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("sets") / "real", captions=True, recordings={13: "video"})


def test_a_folder_is_its_sound_files_named_by_path_without_suffix(own_kinds):
    write_envelope(own_kinds / "gen" / "deep" / "more.WAV", 1)
    (own_kinds / "gen" / "notes.csv").write_text("x")
    (own_kinds / "gen" / ".hidden.wav").write_text("x")
    found = open_set(own_kinds / "gen")
    assert len(found) == 25 and found.others == 1 and "deep/more" in found.names
    samples, rate = found.samples(0)
    assert rate == 16_000 and samples.shape == (4_000, 1) and set(found.parents) == {None}
    assert found.requests() is None and not any(found.captions()) and not found.is_store
    assert found.recordings == found.names


def test_a_key_is_of_the_content_wherever_the_file_lies(own_kinds):
    write_envelope(own_kinds / "other" / "x.wav", 5)
    gen, other = open_set(own_kinds / "gen"), open_set(own_kinds / "other")
    assert other.keys[0] == gen.keys[gen.names.index("wind/clip-5")] != gen.keys[0]
    assert len(set(gen.keys)) == len(gen)


def test_the_sound_of_a_store_is_hashed_once_per_process(store, monkeypatch):
    hashed, xxh3 = [], xxhash.xxh3_128_hexdigest

    def counting(data):
        hashed.extend([data] if isinstance(data, memoryview) else [])  # sound, not the text of store.json
        return xxh3(data)

    monkeypatch.setattr(flac_hash, "_hashes", {})
    monkeypatch.setattr(xxhash, "xxh3_128_hexdigest", counting)
    held_out = open_set(store.path, "eval")
    assert held_out.keys[0] == xxh3(store.flac(int(store.split_indices("eval")[0])))
    assert len(hashed) == len(held_out)
    whole = open_set(store.path)
    place = dict(zip(whole.names, whole.keys, strict=True))
    assert [place[name] for name in held_out.names] == held_out.keys
    assert len(hashed) == len(whole) > len(held_out)
    assert open_set(store.path).take(np.array([1, 0])).keys == whole.keys[1::-1]
    assert len(hashed) == len(whole)


def test_a_key_tells_changes_apart_and_clips_that_a_change_treats_by_name(own_kinds):
    sounds = own_kinds / "gen" / "bell"
    soundfile.write(sounds / "twin.wav", *soundfile.read(sounds / "clip-0.wav"), subtype="PCM_16")
    plain = open_set(own_kinds / "gen").take(np.array([0, 4]))
    assert list(plain.names) == ["bell/clip-0", "bell/twin"] and plain.keys[0] == plain.keys[1]
    sets = [plain.changed(Change(key, lambda name, samples, rate: samples)) for key in "ab"]
    assert len({key for clips in sets for key in clips.keys} | {plain.keys[0]}) == 5


def test_a_store_has_ids_parents_splits_labels_and_captions(store):
    whole, held_out = open_set(store.path), open_set(store.path, "eval")
    chosen = store.split_indices("eval")
    assert list(whole.names) == store.clip_ids and whole.is_store
    assert list(held_out.names) == [store.clip_ids[i] for i in chosen]
    assert np.array_equal(held_out.samples(0)[0][:, 0], store.audio(chosen[:1])[0])
    requests = held_out.requests()
    assert list(requests.classes) == list(SMALL_LABELS) == list(held_out.classes)
    assert requests.targets(held_out.names).tolist() == (store.targets()[chosen] > 0).tolist()
    assert held_out.captions()[0].endswith("nearby, recording 12")
    assert np.array_equal(held_out.codes(), store.codes(chosen))
    assert held_out.recordings[:3] == ["clip12", "video", "clip14"]


def test_what_is_not_a_set_of_clips_is_refused(own_kinds):
    (own_kinds / "empty").mkdir()
    for path in ("nothing", "empty"):
        with pytest.raises(MissingError, match=path):
            open_set(own_kinds / path)
    with pytest.raises(UsageError, match="gen"):
        open_set(own_kinds / "gen", "eval")
    write_envelope(own_kinds / "gen" / "wind" / "clip-5.flac", 1)
    with pytest.raises(UsageError, match="clip-5"):
        open_set(own_kinds / "gen")


def test_taken_clips_keep_what_is_theirs(kinds):
    whole = open_set(kinds / "gen")
    part = whole.take(np.array([7, 2]))
    assert list(part.names) == [whole.names[7], whole.names[2]] and len(part) == 2
    assert part.keys == [whole.keys[7], whole.keys[2]] and part.rates() == Counter({16_000: 2})
    assert np.array_equal(part.samples(1)[0], whole.samples(2)[0])
    doubled = part.changed(
        Change("double", lambda name, samples, rate: np.repeat(samples, 2, axis=0), 32_000)
    )
    assert doubled.samples(1)[1] == 32_000 and len(doubled.samples(1)[0]) == 8_000
    assert doubled.rates() == Counter({32_000: 2})
