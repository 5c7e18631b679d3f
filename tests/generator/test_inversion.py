"""Textual inversion: what moves, what must not, and the files it leaves."""

import pytest
import torch
from safetensors.torch import load_file
from small_generator import LABELS, TRAIN, FakeCodec, make_generator, make_store, small_recipe

from ajbench.errors import IntegrityError
from ajbench.generator import folder, inversion, unet
from ajbench.generator.pipeline import AudioJourneyPipeline
from ajbench.generator.text import MiniLM

torch.set_num_threads(1)
CODEC = FakeCodec()
TOKENS = ("<aj-dog>", "<aj-rain>", "<aj-clock-tick>")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(inversion, "fast_precision", lambda: "fp32")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("real") / "store")


@pytest.fixture(scope="module")
def generator(real, tmp_path_factory):
    return make_generator(tmp_path_factory.mktemp("generator") / "g", real)


def run(generator, real, out, **invert):
    return inversion.invert(
        small_recipe(invert=invert), generator, real, out, fingerprint="t1", seed=2, codec=CODEC
    )


def vectors(path):
    return load_file(path / folder.EMBEDS)


def test_only_the_class_tokens_move(generator, real, tmp_path, monkeypatch):
    made, plain = [], AudioJourneyPipeline.from_pretrained
    monkeypatch.setattr(
        AudioJourneyPipeline, "from_pretrained", lambda *a, **k: made.append(plain(*a, **k)) or made[0]
    )
    out = run(generator, real, tmp_path / "t", train_steps=3)
    monkeypatch.undo()
    fresh, used = plain(generator, codec=CODEC), made[0]
    for one, other in ((fresh.unet, used.unet), (fresh.text.bert, used.text.bert)):
        before, after = one.state_dict(), other.state_dict()
        assert before.keys() == after.keys() and all(
            torch.equal(before[name], after[name]) for name in before
        )
    found, start = vectors(out), vectors(run(generator, real, tmp_path / "start", train_steps=0))
    assert tuple(sorted(found)) == tuple(sorted(start)) == tuple(sorted(TOKENS))
    assert all(v.shape == (1, 384) and v.dtype == torch.float32 for v in found.values())
    assert all(not torch.equal(found[token], start[token]) for token in TOKENS)


def test_untrained_tokens_are_the_means_of_their_names(generator, real, tmp_path):
    found = vectors(run(generator, real, tmp_path / "t", train_steps=0))
    plain = MiniLM(12)
    for label, token in zip(LABELS, TOKENS, strict=True):
        assert torch.equal(found[token][0], plain.initial(label))


def test_stopped_in_the_middle_it_ends_with_the_same_bits(generator, real, tmp_path, monkeypatch):
    run(generator, real, tmp_path / "straight")
    calls, plain = [], inversion.loss

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("cut")
        return plain(*arguments)

    monkeypatch.setattr(inversion, "loss", failing)
    with pytest.raises(RuntimeError, match="cut"):
        run(generator, real, tmp_path / "cut")
    monkeypatch.setattr(inversion, "loss", plain)
    run(generator, real, tmp_path / "cut")
    for name in (folder.EMBEDS, folder.TOKENS):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_tokens_lower_the_loss_they_are_trained_on(generator, real, tmp_path):
    losses = {}
    for steps in (0, 20):
        out = run(generator, real, tmp_path / str(steps), train_steps=steps, lr=0.05, checkpoint_every=100)
        made = AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC)
        module = inversion.Inversion(made)
        g = torch.Generator().manual_seed(1)
        grid = made.whitening.grid(CODEC.latents(real.codes(real.split_indices("train"))))
        noise, t = torch.randn(grid.shape, generator=g), torch.arange(TRAIN) * 80
        prompts = [
            f"The sound of {', '.join(made.tokens[name] for name in real[i].labels)}" for i in range(TRAIN)
        ]
        ids, mask = made.text.tokenize(prompts)
        noisy = unet.noise_schedule().add_noise(grid, noise, t)
        with torch.no_grad():
            batch = {"noisy": noisy, "target": noise, "t": t, "ids": ids, "mask": mask}
            losses[steps] = module(batch).item()
    assert losses[20] < losses[0]


def test_the_file_says_whose_tokens_they_are(generator, real, tmp_path):
    info, _ = folder.read_tokens(run(generator, real, tmp_path / "t", train_steps=0))
    assert info.tokens == dict(zip(LABELS, TOKENS, strict=True))
    assert (info.generator, info.fingerprint) == ("gen0", "t1")
    assert info.train_ids == tuple(sorted(real.clip_ids[:TRAIN]))


def test_a_generator_that_heard_the_evaluation_clips_is_refused(generator, tmp_path):
    # The same clips, of which other ones are held out.
    fold = make_store(tmp_path / "fold", train=6, evaluated=9)
    with pytest.raises(IntegrityError, match="evaluation clips"):
        run(generator, fold, tmp_path / "t", train_steps=0)
