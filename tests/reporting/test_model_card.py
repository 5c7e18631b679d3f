"""A generator's folder for others: whole, checked, opened by the pipeline alone, and honest about itself."""

import numpy as np
import pytest
from small_generator import SAMPLES, FakeCodec, make_generator, make_store, make_tokens

import ajbench
from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.generation import checkpoint
from ajbench.reporting import model_card

MADE_BY = recipe.load("mini")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    home = tmp_path_factory.mktemp("card")
    real = make_store(home / "store")
    return make_generator(home / "g", real), make_tokens(home / "t")


def row(**values):
    base = {"table": "1", "row": "img2img", "column": "", "metric": "fd", "features": "reference", "n": 320}
    return base | {"value": 5.0, "ci_low": 4.0, "ci_high": 6.5} | values


def test_the_folder_alone_gives_the_same_sound(paths, tmp_path):
    out = model_card.export(MADE_BY, *paths, tmp_path / "out")
    codec = FakeCodec()
    whole = ajbench.AudioJourneyPipeline.from_pretrained(out, codec=codec)
    parts = ajbench.AudioJourneyPipeline.from_pretrained(*paths, codec=codec)
    prompt = "The sound of <Clock tick>"
    assert np.array_equal(whole(prompt, steps=3), parts(prompt, steps=3))
    assert not list(tmp_path.glob(".*"))


def test_diffusers_opens_network_and_process_of_the_folder(paths, tmp_path):
    from diffusers import DDPMScheduler, UNet2DConditionModel

    out = model_card.export(MADE_BY, *paths, tmp_path / "out")
    assert UNet2DConditionModel.from_pretrained(out / "unet").config.in_channels == 128
    assert DDPMScheduler.from_pretrained(out / "scheduler").config.beta_schedule == "squaredcos_cap_v2"


def test_nothing_is_replaced_unless_asked(paths, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        model_card.export(MADE_BY, *paths, out)
    assert (out / "mine.txt").exists()
    model_card.export(MADE_BY, *paths, out, force=True)
    assert not (out / "mine.txt").exists() and (out / checkpoint.INFO).exists()


def test_a_damaged_generator_is_not_passed_on(tmp_path):
    generator = make_generator(tmp_path / "g", make_store(tmp_path / "store"))
    (generator / "whitening.json").write_text("{}")
    with pytest.raises(IntegrityError, match="whitening"):
        model_card.export(MADE_BY, generator, make_tokens(tmp_path / "t"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_tells_what_was_measured_and_what_was_not(paths):
    info, tokens = checkpoint.read_info(paths[0]), checkpoint.read_tokens(paths[1])[0]
    plain = model_card.card(MADE_BY, info, tokens)
    assert f"float32 [{SAMPLES}]" in plain and "`<Clock tick>`" in plain and "Nothing yet" in plain
    assert "- clips: 12 of corpus mini" in plain
    rows = [
        row(),
        row(
            table="generation", metric="label_agreement", column="all", value=0.886, ci_low=0.86, ci_high=0.91
        ),
        row(table="generation", metric="label_agreement", column="Dog", value=0.123),
        row(table="generation", metric="fd", value=9.9),
    ]
    told = model_card.card(MADE_BY, info, tokens, rows)
    assert "| img2img | FD to the evaluation clips | 5 | 4 to 6.5 | 320 |" in told
    assert "| img2img | asked class heard | 88.6 % | 86.0 % to 91.0 % | 320 |" in told
    assert "12.3" not in told and "9.9" not in told and "Nothing yet" not in told
