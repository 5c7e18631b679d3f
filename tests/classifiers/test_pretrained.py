"""Initialising a classifier from trained weights: every mismatch is refused."""

import pytest
import torch
from fakes import build_small_ast, random_transformers_ast, save_classifier, set_config

from ajbench import classifiers
from ajbench.core.errors import IntegrityError, UsageError

SAMPLES = 13_440
LABELS = ["Bark", "Hum", "Rain", "Siren", "Speech"]


def saved(folder, name):
    return save_classifier(folder, name, LABELS, SAMPLES)


def test_other_class_names_are_refused_if_both_are_known(tmp_path):
    random_transformers_ast(tmp_path)
    build_small_ast(tmp_path, labels=LABELS)  # LABEL_0 … of transformers are not names
    set_config(tmp_path, id2label={str(i): label for i, label in enumerate(LABELS)})
    for labels in (LABELS, None):
        build_small_ast(tmp_path, labels=labels)
    with pytest.raises(IntegrityError, match=r"class 1 is 'Hum'.*'Rain'.*classifier\.new_head"):
        build_small_ast(tmp_path, labels=[LABELS[i] for i in (0, 2, 1, 3, 4)])
    saved(tmp_path / "ours", "taltrans-small")
    with pytest.raises(IntegrityError, match=r"class 0 is 'Bark'.*'Meow'"):
        classifiers.build("taltrans-small", 5, init=str(tmp_path / "ours"), labels=["Meow", *LABELS[1:]])


@pytest.mark.parametrize("name", ["ast-tiny", "taltrans-small"])
def test_a_classifier_starts_from_a_trained_one(tmp_path, name):
    options = {"clip_samples": SAMPLES} if name == "ast-tiny" else {}
    first = saved(tmp_path, name)
    wav = torch.randn(2, SAMPLES)
    assert torch.equal(classifiers.build(name, 5, init=str(tmp_path), **options).eval()(wav), first(wav))
    with pytest.raises(IntegrityError, match=r"5 classes.* 2; classifier\.new_head"):
        classifiers.build(name, 2, init=str(tmp_path), **options)
    other = classifiers.build(name, 2, init=str(tmp_path), new_head=True, **options).eval()
    torch.testing.assert_close(other.embed(wav), first.embed(wav))
    # new_head is obeyed also where the old head would fit.
    fresh = classifiers.build(name, 5, init=str(tmp_path), new_head=True, **options)
    changed = [n for n, t in fresh.state_dict().items() if not torch.equal(t, first.state_dict()[n])]
    assert changed and all(n.startswith(fresh.head_names) for n in changed)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        classifiers.build(name, 5, init=str(tmp_path), **options)


def test_another_architecture_is_refused(tmp_path):
    saved(tmp_path / "ast", "ast-tiny")
    saved(tmp_path / "tal", "taltrans-small")
    random_transformers_ast(tmp_path / "theirs")
    for name, folder, match in (
        ("ast-tiny", "tal", r"a TalTrans.* an AST"),
        ("taltrans-small", "ast", r"an AST.* a TalTrans"),
        ("taltrans", "tal", "a TalTrans"),
        ("taltrans-small", "theirs", r"config\.json"),
    ):
        with pytest.raises(IntegrityError, match=match):
            classifiers.build(name, 5, init=str(tmp_path / folder))
    with pytest.raises(UsageError, match="init=imagenet"):
        classifiers.build("taltrans-small", 5, init="imagenet")
