"""The section synth: steps that begin far from noise, and how clips are divided."""

import pytest
from pydantic import ValidationError

from ajbench.core.schema import Synth


@pytest.mark.parametrize(("steps", "instead"), [(300, 333), (400, 500), (600, 500), (130, 142)])
def test_steps_that_leave_out_the_noisiest_training_steps_are_refused(steps, instead):
    for sampler in ("ddim", "pndm"):
        with pytest.raises(ValidationError, match=f"choose {instead}"):
            Synth(sampler=sampler, sampler_steps=steps)
        Synth(sampler=sampler, sampler_steps=instead)
    Synth(sampler="dpmsolver++", sampler_steps=steps)
    Synth(sampler="pndm", sampler_steps=45)


@pytest.mark.parametrize(("n", "micro_batch", "found"), [(320, 64, 5), (320, 48, 10), (65, 8, 9), (10, 8, 2)])
def test_micro_batches_do_not_cross_shards(n, micro_batch, found):
    section = Synth(n=n, micro_batch=micro_batch, shard_size=64)
    assert (section.micro_batches, section.shards) == (found, -(-n // 64))


def test_sounds_of_codes_have_the_fingerprints_of_older_versions():
    assert "decode" not in Synth(decode="codes").identity()
    assert Synth().identity()["decode"] == "latents"
