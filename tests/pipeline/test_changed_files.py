"""Files that change while a stage reads them, or while they are compared, at the same size."""

import os

import pytest

from ajbench.core.recipe import CodecSection, Data, Recipe
from ajbench.data.corpora import recordings
from ajbench.pipeline import changed_files
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.shard_encoding import ShardEncoding

DATA = Data(corpus="folder", duration_s=0.84)


@pytest.fixture
def corpus(tmp_path, write_wav, tone):
    for place, split in enumerate(("train", "eval")):
        for k in range(3):
            write_wav(f"corpus/{split}/a/{k}.wav", tone(300 + 40 * k + 20 * place, 0.84))
    return tmp_path / "corpus"


def stage(corpus):
    recipe = Recipe(name="test", data=DATA, codec=CodecSection(name="tiny"))
    return Pipeline(recipe, Places(data=corpus, work=corpus.parent / "work")).prepare


def made(corpus, function=lambda: None):
    """Prepare the corpus; return its store's folder. `function` is called when all clips have been read."""
    encode = ShardEncoding.encode

    def disturbed(*about):
        function()
        return encode(*about)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(ShardEncoding, "encode", disturbed)
        one = stage(corpus)
        one.run("cpu")
    return one.path


def found(corpus, out):
    return [name for name, _ in changed_files.changed(recordings.read_corpus(DATA, corpus), out, DATA)]


def overwrite(path):
    content = bytearray(path.read_bytes())
    content[-4000:] = bytes(4000)
    path.write_bytes(content)


def test_a_file_that_changes_after_it_was_read_is_found(corpus):
    out = made(corpus, lambda: overwrite(corpus / "train" / "a" / "1.wav"))
    assert found(corpus, out) == ["train/a/1"] == found(corpus, out)
    again = stage(corpus)
    assert again.path != out and not again.done()


def test_a_store_that_goes_on_counts_from_its_first_session(corpus):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(corpus, stop)
    begun = (stage(corpus).path / changed_files.READ).stat().st_mtime_ns
    assert (made(corpus) / changed_files.READ).stat().st_mtime_ns == begun


def test_a_file_that_changes_while_files_are_compared_is_found_by_the_next_run(corpus, monkeypatch):
    out, read, path = made(corpus), changed_files.read_clip, corpus / "train" / "a" / "1.wav"
    compared = []

    def disturbed(row, *about, **how):
        clip = read(row, *about, **how)
        compared.append(row.clip_id)
        if row.path == str(path):
            overwrite(path)
        return clip

    path.write_bytes(path.read_bytes())
    with monkeypatch.context() as changed:
        changed.setattr(changed_files, "read_clip", disturbed)
        assert found(corpus, out) == [] and "train/a/1" in compared
    assert found(corpus, out) == ["train/a/1"]


def test_files_that_are_the_same_are_compared_once(corpus, monkeypatch):
    out = made(corpus)
    monkeypatch.setattr(changed_files, "LAG_NS", 0)
    for mark in (changed_files.READ, "DONE"):  # an older folder has only DONE
        os.utime(out / mark, (0, 0))
    (out / changed_files.READ).unlink()
    assert found(corpus, out) == []
    monkeypatch.setattr(changed_files, "read_clip", lambda *about, **how: pytest.fail("compared again"))
    assert found(corpus, out) == []


def test_a_file_is_compared_with_what_the_first_session_recorded(corpus, tmp_path, monkeypatch):
    files, out = {"1": corpus / "train" / "a" / "1.wav"}, tmp_path / "audit"
    changed_files.record(files, out)
    overwrite(files["1"])
    changed_files.record(files, out)  # the second session of the stage
    (out / "DONE").touch()
    assert [name for name, _ in changed_files.since_recorded(files, out)] == ["1"]


def test_a_file_that_changes_while_it_is_compared_with_its_record_is_found(corpus, tmp_path, monkeypatch):
    files, out, checksum = {"1": corpus / "train" / "a" / "1.wav"}, tmp_path / "audit", changed_files.checksum
    changed_files.record(files, out)
    (out / "DONE").touch()
    files["1"].write_bytes(files["1"].read_bytes())

    def disturbed(path):
        before = checksum(path)
        overwrite(path)
        return before

    with monkeypatch.context() as changed:
        changed.setattr(changed_files, "checksum", disturbed)
        assert changed_files.since_recorded(files, out) == []
    assert [name for name, _ in changed_files.since_recorded(files, out)] == ["1"]
