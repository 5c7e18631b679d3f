import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ajbench.captions import score_file
from ajbench.captions.aggregation import Scaling
from ajbench.captions.score_file import ScoredClips
from ajbench.core.errors import IntegrityError, MissingError

IDS = ["a", "b", "c"]


def scored(scaled=(0.0, 0.5, np.nan), ids=IDS, comparison="predicted"):
    raw = np.array([-0.1, 0.2, np.nan])
    return ScoredClips(ids, "minilm", comparison, raw, np.array(scaled), Scaling(-0.1, 0.5))


def test_scores_are_read_as_written_in_any_order_of_clips_and_with_the_same_bytes(tmp_path):
    path, again = tmp_path / "x" / "scores.parquet", tmp_path / "again.parquet"
    for one in (path, again):
        score_file.write(one, [scored(), scored((1, 1, 1), comparison="true")])
    assert path.read_bytes() == again.read_bytes()
    found = score_file.read(path, ["c", "a"], "minilm", "predicted")
    np.testing.assert_equal(found.scaled, [np.nan, 0.0])
    np.testing.assert_equal(found.raw, [np.nan, -0.1])
    assert (found.scaling, found.spread) == (Scaling(-0.1, 0.5), None)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "scores.parquet"
    score_file.write(path, [scored()])
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"scores\.parquet: not a file"):
        score_file.read(path, IDS, "minilm", "predicted")


@pytest.mark.parametrize("odd", [-0.01, 1.01, np.inf])
def test_scores_outside_0_to_1_are_refused(tmp_path, odd):
    score_file.write(tmp_path / "s", [scored((0, odd, 1))])
    with pytest.raises(IntegrityError, match="clip b"):
        score_file.read(tmp_path / "s", IDS, "minilm", "predicted")


def test_a_nan_is_refused_and_a_null_is_a_clip_without_a_score(tmp_path):
    path = tmp_path / "s"
    score_file.write(path, [scored()])
    table = pq.read_table(path)
    table = table.replace_schema_metadata(
        {b"ajbench": table.schema.metadata[b"ajbench"]}
    )  # not ours any more
    column = pa.array([0.0, float("nan"), 1.0])  # a NaN, not a null
    pq.write_table(table.set_column(table.schema.get_field_index("scaled"), "scaled", column), path)
    with pytest.raises(IntegrityError, match="clip b"):
        score_file.read(path, IDS, "minilm", "predicted")


def test_scores_of_other_clips_or_scorers_and_other_files_are_refused(tmp_path):
    path = tmp_path / "s"
    score_file.write(path, [scored()])
    with pytest.raises(IntegrityError, match="1 of 2 clips have none, the first d"):
        score_file.read(path, ["a", "d"], "minilm", "predicted")
    with pytest.raises(MissingError, match="minilm/true"):
        score_file.read(path, IDS, "minilm", "true")
    with pytest.raises(MissingError, match="nowhere"):
        score_file.read(tmp_path / "nowhere", IDS, "minilm", "true")
    (tmp_path / "odd").write_text("not Parquet")
    with pytest.raises(IntegrityError, match="odd"):
        score_file.read(tmp_path / "odd", IDS, "minilm", "true")
    score_file.write(path, [scored(ids=["a", "a", "b"])])
    with pytest.raises(IntegrityError, match="clip a"):
        score_file.read(path, ["a"], "minilm", "predicted")
