import numpy as np
import pytest
from fakes import KIND_CLIPS, measured, overall, pair_of

from ajbench.evaluation import per_clip

METRICS = ["kl", "label_agreement", "precision", "clap_score", "lsd"]


def test_single_clips_have_scores_and_the_worst_are_named(kinds):
    pair = pair_of(kinds)
    found = measured(pair, METRICS, clips=True)
    lines = {line["gen"]: line for line in found.clips}
    assert len(lines) == KIND_CLIPS and lines["dog/clip-1"]["ref"] == "dog/clip-1"
    for metric in ("kl", "precision", "clap_score", "lsd"):
        assert np.mean([line[metric] for line in found.clips]) == pytest.approx(overall(found)[metric])
    ranks = np.array([line["rank"] for line in found.clips])
    assert np.mean(ranks == 1) == pytest.approx(overall(found)["label_agreement"])
    worst = per_clip.worst(found.clips, 3)
    assert set(worst) == {"kl", "rank", "clap_score", "lsd", "distance"}
    for name, falling in (("kl", True), ("clap_score", False), ("distance", True)):
        ordered = sorted((line[name] for line in found.clips), reverse=falling)[:3]
        assert [one["value"] for one in worst[name]] == ordered
        assert all(lines[one["gen"]][name] == one["value"] for one in worst[name])
    farthest = worst["distance"][0]
    distances = np.linalg.norm(pair.vectors[0][pair.names.index(farthest["gen"])] - pair.vectors[1], axis=1)
    assert farthest["value"] == pytest.approx(distances.min(), rel=1e-6)
    assert farthest["ref"] == pair.ref.names[distances.argmin()]
    assert len(per_clip.describe(worst)) == 5


def test_sets_that_are_not_paired_have_no_real_clip_of_their_own(kinds):
    found = measured(pair_of(kinds, pairs={}), ["precision", "recall", "density"], clips=True)
    assert list(found.clips[0]) == ["features", "gen", "ref", "precision", "density", "distance", "nearest"]
    assert {line["ref"] for line in found.clips} == {""}
