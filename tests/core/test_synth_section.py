"""Keys of the section synth that have no effect, or take time for nothing, are refused."""

import pytest
from pydantic import ValidationError

from ajbench.core.schema import Synth


@pytest.mark.parametrize(
    "keys",
    [
        {"guidance": 1.0, "negative": "speech"},
        {"guidance": 1.0, "guidance_rescale": 0.5},
        {"micro_batch": 128, "shard_size": 64},
    ],
)
def test_keys_without_effect_are_refused(keys):
    with pytest.raises(ValidationError, match=next(reversed(keys)).partition("_")[0]):
        Synth(**keys)


@pytest.mark.parametrize(("n", "micro_batch", "found"), [(320, 64, 5), (320, 48, 10), (65, 8, 9), (10, 8, 2)])
def test_micro_batches_do_not_cross_shards(n, micro_batch, found):
    section = Synth(n=n, micro_batch=micro_batch, shard_size=64)
    assert (section.micro_batches, section.shards) == (found, -(-n // 64))
