"""Claims and jobs: other processes, kills, other fingerprints, and closing."""

import fcntl
from multiprocessing import get_context

import pytest

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import shard_job, shards, store
from ajbench.data.shard_job import ShardJob

from .conftest import build, meta, record


def test_finish_removes_the_leftovers_of_a_killed_job(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    shards.write_shard(tmp_path, 0, [record(0)])
    (tmp_path / "part-00001.arrow.tmp").write_bytes(b"half")
    (tmp_path / "run.json").write_text("{}")
    shard_job.claim(tmp_path, "part-00000").close()
    whole = shards.finish(tmp_path, meta())
    assert {path.name for path in tmp_path.iterdir()} == {"part-00000.arrow", "run.json", "store.json"}
    assert [(entry.file, entry.clips) for entry in whole.shards] == [("part-00000.arrow", 1)]
    assert store.ClipStore.open(tmp_path).meta == whole


def test_a_job_that_is_no_text_is_another_job(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    (tmp_path / shards.CLAIMS / "job").write_bytes(b"\xff123456789ab")
    with pytest.raises(IntegrityError, match="holds work of fingerprint"):
        shard_job.open_job(tmp_path, "0123456789ab")


@pytest.mark.parametrize("note", ["{", "[]", "[" * 9000])
def test_a_damaged_note_of_a_shard_is_named(tmp_path, note):
    shard_job.open_job(tmp_path, "0123456789ab")
    job = ShardJob(tmp_path, 1, 1)
    job.run(lambda shard: ([record(shard)], {}), lambda n: None)
    (tmp_path / shards.CLAIMS / "part-00000.json").write_text(note)
    with pytest.raises(IntegrityError, match=r"part-00000\.json: damaged .*; delete it"):
        job.close(lambda notes: None)


@pytest.mark.parametrize("fault", ["flipped", "gone"])
def test_a_shard_that_changes_before_the_store_is_closed_is_made_anew(tmp_path, fault):
    shard_job.open_job(tmp_path, "0123456789ab")
    job, made = ShardJob(tmp_path, 2, 1), []

    def make(shard):
        made.append(shard)
        return [record(shard)], {}

    job.run(make, lambda n: None)
    path = shards.shard_path(tmp_path, 1)
    whole = path.read_bytes()
    if fault == "gone":
        path.unlink()
    else:
        at = whole.index(b"audio") + 1  # Arrow itself reads it all the same
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(IntegrityError, match=r"part-00001\.arrow: (damaged|gone) since"):
        job.close(lambda notes: shards.finish(tmp_path, meta()))
    job.run(make, lambda n: None)
    job.close(lambda notes: shards.finish(tmp_path, meta()))
    assert made == [0, 1, 1] and path.read_bytes() == whole
    assert not (tmp_path / ".claims").exists()


def test_a_damaged_note_is_named(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    job = ShardJob(tmp_path, 1, 1)
    job.run(lambda shard: ([record(shard)], {}), lambda n: None)
    (tmp_path / ".claims" / "part-00000.json").write_bytes(b'{"xxh3": \xff')
    with pytest.raises(IntegrityError, match=r"part-00000\.json: damaged .*delete it"):
        job.close(lambda notes: shards.finish(tmp_path, meta()))


def hold(folder, pipe):
    held = shard_job.claim(folder, "part-00000")
    pipe.send("taken" if held is None else "held")
    pipe.recv()


def start_holder(folder):
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=hold, args=(folder, there))
    process.start()
    return process, here, here.recv()


def test_a_claim_excludes_other_processes_and_ends_with_its_holder(tmp_path):
    first, _, answer = start_holder(tmp_path)
    assert answer == "held"
    assert shard_job.claim(tmp_path, "part-00000") is None
    shard_job.claim(tmp_path, "part-00001").close()
    first.kill()
    first.join()
    with shard_job.claim(tmp_path, "part-00000"):
        assert shard_job.claim(tmp_path, "part-00000") is None
        second, pipe, answer = start_holder(tmp_path)
        assert answer == "taken"
        pipe.send(None)
        second.join()
    shard_job.claim(tmp_path, "part-00000").close()


def test_a_claim_made_while_the_job_is_closed_is_on_an_existing_file(tmp_path, monkeypatch):
    # Between opening the lock and locking it, another process finishes and removes the folder.
    real, left = fcntl.flock, ["close the job"]

    def flock(file, operation):
        if left:
            left.pop()
            shards.clear(tmp_path)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with shard_job.claim(tmp_path, "part-00000"):
        assert shard_job.claim(tmp_path, "part-00000") is None


def test_another_job_is_refused(tmp_path):
    for _ in range(2):
        assert shard_job.open_job(tmp_path / "s", "0123456789ab") is False
    with pytest.raises(IntegrityError, match="ffff"):
        shard_job.open_job(tmp_path / "s", "ffff")
    build(tmp_path / "s")
    assert shard_job.open_job(tmp_path / "s", "0123456789ab") is True
    assert not (tmp_path / "s" / ".claims").exists()
    with pytest.raises(IntegrityError, match="ffff"):
        shard_job.open_job(tmp_path / "s", "ffff")


def test_shards_of_an_unknown_job_are_refused(tmp_path):
    shards.write_shard(tmp_path, 0, [record(0)])
    with pytest.raises(IntegrityError, match=r"part-00000\.arrow"):
        shard_job.open_job(tmp_path, "0123456789ab")


def test_discard_keeps_only_the_quarantine(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    shards.write_shard(tmp_path, 0, [record(0)])
    shards.write_quarantine(tmp_path, [])
    shard_job.discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["quarantine.csv"]
    assert shard_job.open_job(tmp_path, "another") is False


def test_shards_that_another_process_holds_are_waited_for(tmp_path):
    job = ShardJob(tmp_path, 5, 2)
    assert [list(job.items(shard)) for shard in job.shards] == [[0, 1], [2, 3], [4]]
    other, _pipe, answer = start_holder(tmp_path)
    assert answer == "held"
    made, advanced = [], []

    def make(shard):
        made.append(shard)
        if shard == 2:  # the other process dies, so its shard becomes free
            other.kill()
            other.join()
        return [record(i) for i in job.items(shard) if i != 4], {"shard": shard}

    job.run(make, advanced.append)
    assert made == [1, 2, 0] and all(job.written(shard) for shard in job.shards)
    job.run(make, advanced.append)
    assert made == [1, 2, 0] and sum(advanced) == 5  # the second run only reports what is there
    notes = []
    job.close(lambda found: notes.extend(found) or shards.finish(tmp_path, meta()))
    assert [note["shard"] for note in notes] == [0, 1, 2] and job.closed
    assert [entry.clips for entry in shards.read_meta(tmp_path).shards] == [2, 2]  # shard 2 has no clip
    assert not (tmp_path / ".claims").exists()


def test_a_job_that_another_process_discarded_is_not_closed(tmp_path):
    job = ShardJob(tmp_path, 2, 1)
    job.run(lambda shard: ([record(shard)], {}), lambda n: None)
    shard_job.discard(tmp_path)
    with pytest.raises(MissingError, match=str(tmp_path)):
        job.close(lambda notes: None)
