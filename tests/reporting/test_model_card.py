"""An exported generator is complete, checked, and can be opened on its own."""

import shutil

import numpy as np
import pytest
from fakes import CLIP_SAMPLES, FakeCodec, make_generator, make_store, make_tokens

import ajbench
from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.generation import checkpoint
from ajbench.reporting import model_card

MADE_BY = recipe.load("mini")


@pytest.fixture(scope="session")
def paths(tmp_path_factory):
    home = tmp_path_factory.mktemp("card")
    return make_generator(home / "g", make_store(home / "store")), make_tokens(home / "t")


@pytest.fixture(scope="session")
def exported(paths, tmp_path_factory):
    return model_card.export(MADE_BY, *paths, tmp_path_factory.mktemp("exported") / "out")


def row(**values):
    base = {"table": "1", "row": "img2img", "column": "", "metric": "fd", "features": "reference", "n": 320}
    return base | {"value": 5.0, "ci_low": 4.0, "ci_high": 6.5} | values


def test_the_exported_folder_generates_the_same_audio(paths, exported):
    load, codec, prompt = (
        ajbench.AudioJourneyPipeline.from_pretrained,
        FakeCodec(),
        "The sound of <Clock tick>",
    )
    whole, parts = (load(*some, codec=codec)(prompt, steps=3) for some in ([exported], paths))
    assert np.array_equal(whole, parts)
    assert not list(exported.parent.glob(".*"))


def test_diffusers_opens_the_network_and_the_noise_schedule(exported):
    from diffusers import DDPMScheduler, UNet2DConditionModel

    assert UNet2DConditionModel.from_pretrained(exported / "unet").config.in_channels == 128
    assert DDPMScheduler.from_pretrained(exported / "scheduler").config.beta_schedule == "squaredcos_cap_v2"


def test_only_an_exported_generator_is_replaced_and_only_with_force(paths, tmp_path):
    thesis, out = tmp_path / "thesis.txt", tmp_path / "out"
    thesis.write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match="--force"):
            model_card.export(MADE_BY, *paths, tmp_path, force=force)
    with pytest.raises(UsageError, match="--force"):
        model_card.export(MADE_BY, *paths, paths[0], force=True)
    assert thesis.exists() and (paths[0] / checkpoint.INFO).exists()
    out.mkdir()
    model_card.export(MADE_BY, *paths, out, force=True)
    (out / "old.txt").write_text("of an earlier version")
    with pytest.raises(UsageError, match="--force"):
        model_card.export(MADE_BY, *paths, out)
    model_card.export(MADE_BY, *paths, out, force=True)
    assert not (out / "old.txt").exists() and (out / checkpoint.INFO).exists()


def test_an_export_that_was_killed_while_it_replaced_another_can_be_made_again(paths, tmp_path, monkeypatch):
    out, rmtree = model_card.export(MADE_BY, *paths, tmp_path / "out"), shutil.rmtree

    def until_the_kill(folder, ignore_errors=False):
        if (folder / model_card.CARD).exists():
            (folder / model_card.CARD).unlink()
            raise KeyboardInterrupt
        rmtree(folder, ignore_errors=ignore_errors)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", until_the_kill)
        model_card.export(MADE_BY, *paths, out, force=True)
    model_card.export(MADE_BY, *paths, out, force=True)
    assert checkpoint.read_info(out) and [*tmp_path.iterdir()] == [out]


def test_a_damaged_generator_is_not_exported(paths, tmp_path):
    generator = make_generator(tmp_path / "g", make_store(tmp_path / "store"))
    (generator / "whitening.json").write_text("{}")
    with pytest.raises(IntegrityError, match="whitening"):
        model_card.export(MADE_BY, generator, paths[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_has_the_measurements_of_whole_sets(paths):
    info, tokens = checkpoint.read_info(paths[0]), checkpoint.read_tokens(paths[1])[0]
    plain = model_card.card(MADE_BY, info, tokens)
    assert f"float32 [{CLIP_SAMPLES}]" in plain and "`<Clock tick>`" in plain and "ajbench eval-gen" in plain
    assert "- clips: 12 of corpus mini" in plain
    agreement = {"table": "generation", "metric": "label_agreement"}
    rows = [row(), row(**agreement, column="all", value=0.886, ci_low=0.86, ci_high=0.91)]
    rows += [row(**agreement, column="Dog", value=0.123), row(table="generation", metric="fd", value=9.9)]
    text = model_card.card(MADE_BY, info, tokens, rows)
    assert "| img2img | FD to the evaluation clips | 5 | 4 to 6.5 | 320 |" in text
    assert "| img2img | label agreement | 88.6 % | 86.0 % to 91.0 % | 320 |" in text
    assert "12.3" not in text and "9.9" not in text and "ajbench eval-gen" not in text
