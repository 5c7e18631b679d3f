"""Textual inversion: what moves, what must not, and the files it leaves."""

import csv
import json

import pytest
import torch
from fakes import (
    N_TRAIN,
    SMALL_LABELS,
    TEXT_ENCODER_DIMS,
    FakeCodec,
    make_generator,
    make_store,
    save_text_encoder,
    small_recipe,
)
from safetensors.torch import load_file

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.generation import checkpoint, textual_inversion, train, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.plan import ListedClips, plan
from ajbench.generation.text_encoder import MiniLM

torch.set_num_threads(1)
CODEC = FakeCodec()
TOKENS = ("<aj-dog>", "<aj-rain>", "<aj-clock-tick>")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("real") / "store")


@pytest.fixture(scope="module")
def generator(real, tmp_path_factory):
    return make_generator(tmp_path_factory.mktemp("generator") / "g", real)


@pytest.fixture(scope="module")
def generators(generator, real, tmp_path_factory):
    """A generator for every kind of text encoder."""
    home, made = tmp_path_factory.mktemp("kinds"), {"minilm": generator}
    for kind, dim in TEXT_ENCODER_DIMS.items():
        weights = save_text_encoder(kind, home / f"{kind}-weights")
        made[kind] = make_generator(home / kind, real, text_encoder=str(weights), width=dim)
    return made


def run(generator, real, out, **invert):
    return textual_inversion.invert(
        small_recipe(invert=invert), generator, real, out, fingerprint="t1", seed=2, codec=CODEC
    )


def vectors(path):
    return load_file(path / checkpoint.EMBEDS)


def curve(path):
    with (path / checkpoint.CURVE).open(newline="") as file:
        return [
            (int(r["last_step"]), r["class"], float(r["loss"]), int(r["n"])) for r in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("kind", "k"), [("minilm", 1), ("minilm", 3), ("t5-large", 2), ("flan-t5", 2), ("clip", 2), ("clap", 2)]
)
def test_only_the_class_tokens_move(generators, real, tmp_path, monkeypatch, kind, k):
    generator = generators[kind]
    made, plain = [], AudioJourneyPipeline.from_pretrained
    monkeypatch.setattr(
        AudioJourneyPipeline, "from_pretrained", lambda *a, **k: made.append(plain(*a, **k)) or made[0]
    )
    out = run(generator, real, tmp_path / "t", train_steps=1, vectors=k)
    monkeypatch.undo()
    fresh, used = plain(generator, codec=CODEC), made[0]
    for one, other in ((fresh.unet, used.unet), (fresh.text.model, used.text.model)):
        before, after = one.state_dict(), other.state_dict()
        assert before.keys() == after.keys() and all(
            torch.equal(before[name], after[name]) for name in before
        )
    found, start = vectors(out), vectors(run(generator, real, tmp_path / "start", train_steps=0, vectors=k))
    assert tuple(sorted(found)) == tuple(sorted(start)) == tuple(sorted(TOKENS))
    assert all(v.shape == (k, fresh.text.dim) and v.dtype == torch.float32 for v in found.values())
    assert all((found[token] != start[token]).any(1).all() for token in TOKENS)


def test_untrained_tokens_are_the_means_of_their_names(generator, real, tmp_path):
    found = vectors(run(generator, real, tmp_path / "t", train_steps=0))
    plain = MiniLM(12)
    for label, token in zip(SMALL_LABELS, TOKENS, strict=True):
        assert torch.equal(found[token][0], plain.initial(label))


def test_vectors_may_begin_at_a_neutral_word(generator, real, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=0, vectors=2, init="sound")
    assert all(torch.equal(v, MiniLM(12).initial("sound").expand(2, -1)) for v in vectors(out).values())
    assert checkpoint.read_tokens(out)[0].init == "sound"


# Checkpoints are of steps 2, 4, 6, 7; windows end with 3, 6, 7.
@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("forward", 6),  # the checkpoint of step 4 has a third of a window
        ("write", 1),  # before any window is in a checkpoint
        ("write", 2),  # the file has steps 4 to 6, the last checkpoint is of step 4
    ],
)
def test_stopped_in_the_middle_it_ends_with_the_same_bits(generator, real, tmp_path, monkeypatch, what, call):
    how = {"vectors": 2, "train_steps": 7, "log_every": 3}
    run(generator, real, tmp_path / "straight", **how)
    owner = textual_inversion.Inversion if what == "forward" else textual_inversion.ClassCurve
    calls, plain = [], getattr(owner, what)

    def failing(*arguments):
        result = plain(*arguments)
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("cut")
        return result

    monkeypatch.setattr(owner, what, failing)
    with pytest.raises(RuntimeError, match="cut"):
        run(generator, real, tmp_path / "cut", **how)
    assert what == "forward" or max(row[0] for row in curve(tmp_path / "cut")) == 3 * call
    monkeypatch.setattr(owner, what, plain)
    run(generator, real, tmp_path / "cut", **how)
    assert {row[0] for row in curve(tmp_path / "cut")} == {3, 6, 7}
    for name in (checkpoint.EMBEDS, checkpoint.TOKENS, checkpoint.CURVE):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_tokens_lower_the_loss_they_are_trained_on(generator, real, tmp_path):
    losses = {}
    for steps in (0, 20):
        out = run(generator, real, tmp_path / str(steps), train_steps=steps, lr=0.05, checkpoint_every=100)
        made = AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC)
        module = textual_inversion.Inversion(made, 3)
        g = torch.Generator().manual_seed(1)
        grid = made.whitening.grid(CODEC.latents(real.codes(real.split_indices("train"))))
        noise, t = torch.randn(grid.shape, generator=g), torch.arange(N_TRAIN) * 80
        prompts = [
            f"The sound of {', '.join(made.tokens[name] for name in real[i].labels)}" for i in range(N_TRAIN)
        ]
        ids, mask = made.text.tokenize(prompts)
        noisy = unet.noise_schedule().add_noise(grid, noise, t)
        with torch.no_grad():
            batch = {"noisy": noisy, "target": noise, "t": t, "ids": ids, "mask": mask}
            losses[steps] = module(batch).mean().item()
    assert losses[20] < losses[0]


def test_the_file_says_whose_tokens_they_are(generator, real, tmp_path):
    info, _ = checkpoint.read_tokens(run(generator, real, tmp_path / "t", train_steps=0))
    assert info.tokens == dict(zip(SMALL_LABELS, TOKENS, strict=True))
    assert (info.generator, info.fingerprint) == ("gen0", "t1")
    assert info.train_ids == tuple(sorted(real.clip_ids[:N_TRAIN]))


def test_a_generator_that_heard_the_evaluation_clips_is_refused(generator, tmp_path):
    # The same clips, of which other ones are held out.
    fold = make_store(tmp_path / "fold", train=6, evaluated=9)
    with pytest.raises(IntegrityError, match="evaluation clips"):
        run(generator, fold, tmp_path / "t", train_steps=0)


def test_the_curve_is_the_mean_error_of_each_class_clips(generator, real, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=3, log_every=2, lr=1e-20)
    made = AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC)
    clips = real.split_indices("train")
    grids = train.grid_reader(real, clips, CODEC, made.whitening)
    batches = train.noisy_batches(grids, N_TRAIN, unet.noise_schedule(), 4, 2)
    expected = []
    for last, window in ((2, (0, 1)), (3, (2,))):
        errors = {label: [] for label in SMALL_LABELS}
        for batch in map(batches, window):
            for row, pick in enumerate(batch["picks"].tolist()):
                labels = real[int(clips[pick])].labels
                states, _ = made.text.encode([f"The sound of {', '.join(made.tokens[n] for n in labels)}"])
                with torch.no_grad():
                    one = batch["noisy"][row : row + 1], batch["t"][row : row + 1]
                    guess = unet.denoise(made.unet, *one, states, None)
                for label in labels:
                    errors[label].append((guess[0] - batch["target"][row]).square().mean().item())
        expected += [(last, name, sum(e) / len(e), len(e)) for name, e in errors.items() if e]
    found = curve(out)
    assert [(*row[:2], row[3]) for row in found] == [(*row[:2], row[3]) for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-5)
    assert sum(row[3] for row in found) > 3 * 4  # clips of two classes count for both


def test_some_classes_alone_get_tokens_and_are_heard(generator, real, tmp_path, monkeypatch):
    prompts, plain = [], textual_inversion.sound_of
    monkeypatch.setattr(
        textual_inversion, "sound_of", lambda names: prompts.append(plain(names)) or prompts[-1]
    )
    out = run(generator, real, tmp_path / "t", train_steps=2, classes=["Clock tick", "Dog"])
    info, found = checkpoint.read_tokens(out)
    assert info.tokens == {"Dog": "<aj-dog>", "Clock tick": "<aj-clock-tick>"} and found.keys() == {
        *info.tokens.values()
    }
    heard = [real[i] for i in range(N_TRAIN) if {"Dog", "Clock tick"}.intersection(real[i].labels)]
    assert 0 < len(heard) < N_TRAIN and info.train_ids == tuple(clip.clip_id for clip in heard)
    assert len(prompts) == len(heard) and "The sound of <aj-dog>, Rain" in prompts
    assert {row[1] for row in curve(out)} == {"Dog", "Clock tick"}
    with pytest.raises(UsageError, match=r"invert\.classes.*'Dogg'.*did you mean 'Dog'"):
        run(generator, real, tmp_path / "no", classes=["Dogg"])


def test_prompts_of_tokens_of_several_vectors_are_planned_short_and_heard_whole(generator, real, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=1, vectors=3)
    made = AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC)
    assert made.text.vectors == dict.fromkeys(TOKENS, 3)
    planned = (
        plan(small_recipe(synth={"n": 6}).synth, ListedClips.of_store(real), made.tokens)
        .column("prompt")
        .to_pylist()
    )
    assert "The sound of <aj-rain>" in planned and not any("_1" in prompt for prompt in planned)
    ids, _ = made.text.tokenize(["The sound of <aj-rain>"])
    assert (ids >= made.text.vocabulary).sum() == 3
    before = made("The sound of <Rain>", steps=2)
    with torch.no_grad():
        made.text.rows[-1] += 1  # the last of rain's, which is loaded last
    made.text._cache.clear()
    assert (made("The sound of <Rain>", steps=2) != before).any()


def test_prompts_that_vectors_make_too_long_are_counted(generator, real, tmp_path):
    # [CLS] the sound of, k vectors, [SEP]: 12 tokens hold seven vectors, not two classes of them.
    out = run(generator, real, tmp_path / "t", train_steps=0, vectors=7)
    several = {tuple(real[i].labels) for i in range(N_TRAIN) if len(real[i].labels) > 1}
    assert checkpoint.read_tokens(out)[0].prompts_cut == len(several) > 0


def test_files_of_before_are_of_one_vector(generator, real, tmp_path):
    out = run(generator, real, tmp_path / "t", train_steps=0)
    tree = json.loads((out / checkpoint.TOKENS).read_text())
    for key in ("vectors", "init", "prompts_cut"):
        del tree[key]
    (out / checkpoint.TOKENS).write_text(json.dumps(tree))
    info, _ = checkpoint.read_tokens(out)
    assert (info.vectors, info.init, info.prompts_cut) == (1, "name", 0)
    assert AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC).text.tokens == sorted(TOKENS)
