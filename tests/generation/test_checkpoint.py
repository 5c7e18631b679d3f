"""The folders of generators and tokens: damage, foreign and older files, and the leak rule."""

import json

import pytest
from fakes import N_TRAIN, SMALL_LABELS, FakeCodec, flip_in, make_generator, make_store, make_tokens

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.generation import checkpoint, lora, unet
from ajbench.generation.pipeline import AudioJourneyPipeline

from .conftest import invert

CODEC = FakeCodec()


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "whitening.json", "generator.json"]
)
def test_one_changed_byte_is_found(real, tmp_path, name):
    path = make_generator(tmp_path / "g", real)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name.rpartition("/")[2]):
        AudioJourneyPipeline.from_pretrained(path, codec=CODEC)


@pytest.mark.parametrize("text", ['"max_tokens": 12', '"train_ids": [\n  "clip00'])
def test_a_changed_fact_about_a_generator_is_found(real, tmp_path, text):
    path = make_generator(tmp_path / "g", real)
    flip_in(path / checkpoint.INFO, text)
    with pytest.raises(IntegrityError, match=checkpoint.INFO):
        checkpoint.read_info(path)


def test_a_changed_fact_about_class_tokens_is_found(tmp_path):
    path = make_tokens(tmp_path / "t", train_ids=("clip7",))
    flip_in(path / checkpoint.TOKENS, '"train_steps": 1')
    with pytest.raises(IntegrityError, match=checkpoint.TOKENS):
        checkpoint.read_tokens(path)


def test_a_generator_of_an_earlier_version_is_read(real, tmp_path):
    path = make_generator(tmp_path / "g", real) / checkpoint.INFO
    tree = json.loads(path.read_text())
    del tree["seal"], tree["text_setup"]
    path.write_text(json.dumps(tree))
    AudioJourneyPipeline.from_pretrained(tmp_path / "g", codec=CODEC)


def test_what_a_killed_save_left_is_not_part_of_the_generator(generator, tmp_path):
    made = AudioJourneyPipeline.from_pretrained(generator, codec=CODEC)
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / ".tmp434Uwd").write_bytes(b"half")  # as safetensors names it
    checkpoint.save(tmp_path, made.unet, unet.noise_schedule(), made.whitening, made.info)
    assert checkpoint.read_info(tmp_path).xxh3.keys() == made.info.xxh3.keys()
    assert not (tmp_path / "unet" / ".tmp434Uwd").exists()


def test_a_generator_is_on_disk_before_it_counts_as_finished(generator, tmp_path, monkeypatch, unsynced):
    made, seal, lost = (
        AudioJourneyPipeline.from_pretrained(generator, codec=CODEC),
        checkpoint.write_sealed,
        [],
    )

    def write_sealed(path, *arguments, **options):
        lost.append(unsynced(tmp_path))
        seal(path, *arguments, **options)

    monkeypatch.setattr(checkpoint, "write_sealed", write_sealed)
    checkpoint.save(tmp_path, made.unet, unet.noise_schedule(), made.whitening, made.info)
    assert lost == [set()] and not unsynced(tmp_path)


def test_a_generator_that_is_replaced_in_part_counts_as_none(generator, tmp_path, monkeypatch):
    made = AudioJourneyPipeline.from_pretrained(generator, codec=CODEC)

    def killed(folder):
        raise KeyboardInterrupt

    def save():
        checkpoint.save(tmp_path, made.unet, unet.noise_schedule(), made.whitening, made.info)

    save()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(made.unet, "save_pretrained", killed)
        save()
    with pytest.raises(MissingError, match=checkpoint.INFO):
        checkpoint.read_info(tmp_path)


def test_damaged_lora_is_found(generator, real, adapted, tmp_path):
    path = invert(generator, real, tmp_path / "t", train_steps=0, tokens=False, lora_rank=3)
    (path / lora.FILE).write_bytes((adapted / lora.FILE).read_bytes())
    with pytest.raises(IntegrityError, match=lora.FILE):
        AudioJourneyPipeline.from_pretrained(generator, path, codec=CODEC)


def test_missing_and_foreign_folders_are_named(generator, tmp_path):
    with pytest.raises(MissingError, match="train-gen"):
        AudioJourneyPipeline.from_pretrained(tmp_path / "nowhere", codec=CODEC)
    with pytest.raises(MissingError, match="invert"):
        AudioJourneyPipeline.from_pretrained(generator, tmp_path / "nowhere", codec=CODEC)
    foreign = make_tokens(tmp_path / "t", generator="gen9")
    with pytest.raises(IntegrityError, match="gen9"):
        AudioJourneyPipeline.from_pretrained(generator, foreign, codec=CODEC)
    other = FakeCodec()
    other.weights_hash = "else"
    with pytest.raises(IntegrityError, match="else"):
        AudioJourneyPipeline.from_pretrained(generator, codec=other)


def test_older_token_files_have_one_vector_per_token_and_no_lora(generator, tmp_path):
    out = make_tokens(tmp_path / "t")
    tree = json.loads((out / checkpoint.TOKENS).read_text())
    for key in ("vectors", "init", "prompts_cut", "lora_rank", "seal"):
        del tree[key]
    (out / checkpoint.TOKENS).write_text(json.dumps(tree))
    info, _ = checkpoint.read_tokens(out)
    assert (info.vectors, info.init, info.prompts_cut, info.lora_rank) == (1, "name", 0, None)
    made = AudioJourneyPipeline.from_pretrained(generator, out, codec=CODEC)
    assert len(made.text.tokens) == len(made.tokens) == len(SMALL_LABELS)


def test_the_leak_rule_compares_clips_and_recordings(generator, tmp_path):
    info = checkpoint.read_info(generator)
    ours = make_store(tmp_path / "ours", recordings={1: "youtube:a", 13: "youtube:b"})
    ids, recordings = checkpoint.named(ours, ours.split_indices("train"))
    assert recordings == (ids[0], "youtube:a", *ids[2:])
    info = info.model_copy(update={"train_ids": ids, "train_recordings": recordings})
    checkpoint.refuse_leak(tmp_path, info, ours)
    own_clip = make_store(tmp_path / "fold", train=N_TRAIN - 1)
    with pytest.raises(IntegrityError, match=rf" 1 of .*clip{N_TRAIN - 1}"):
        checkpoint.refuse_leak(tmp_path, info, own_clip)
    same_video = make_store(tmp_path / "other", prefix="other", recordings={13: "youtube:a", 14: "youtube:a"})
    with pytest.raises(IntegrityError, match=r" 2 of .*other13.*clip01.*youtube:a"):
        checkpoint.refuse_leak(tmp_path, info, same_video)


@pytest.mark.parametrize("absent", [("train_recordings",), ("train_ids", "train_recordings")])
def test_unknown_training_clips_are_refused(real, generator, absent):
    info = checkpoint.read_info(generator).model_copy(update=dict.fromkeys(absent, ()))
    with pytest.raises(IntegrityError, match=str(generator)):
        checkpoint.refuse_leak(generator, info, real)
