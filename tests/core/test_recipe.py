import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core import recipe, recipe_tree, registry
from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix

ORIGINALS = ("as20k", "as2m", "fsd50k", "vggsound", "esc50")


def check_settings(section, **expected):
    assert {key: getattr(section, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "overrides"),
    [(name, []) for name in recipe_tree.shipped()] + [(name, ["variant=original"]) for name in ORIGINALS],
)
def test_every_shipped_recipe_is_valid_and_survives_a_dump(name, overrides, tmp_path):
    loaded = recipe.load(name, overrides)
    assert loaded.name == name
    assert loaded.variant == ("original" if overrides else "paper")
    again = tmp_path / "again.yaml"
    again.write_text(recipe.dump(loaded), encoding="utf-8")
    assert recipe.load(str(again)) == loaded


def test_all_promised_recipes_are_shipped():
    promised = {"mini", "esc10", "esc50", "as20k", "as20k-self", "as2m", "fsd50k", "vggsound", "audiocaps"}
    video = {"mini-av", "avdigits", "avdigits-noise", "as20k-av", "as2m-av", "vggsound-av"}
    table_1 = {f"as2m/{name}" for name in ("clap", "clap-masked", "t5-masked", "t5")}
    assert promised | table_1 | video <= set(recipe_tree.shipped())


def test_variants_have_the_settings_of_the_repositories():
    ast = recipe.load("as20k", ["variant=original"]).classifier_of()
    check_settings(ast, lr=5e-5, batch_size=12, epochs=25, average_epochs=(6, 25), init="imagenet")
    check_settings(ast, betas=(0.95, 0.999), weight_decay=5e-7, optimizer="adam", warmup_steps=1000)
    check_settings(ast, schedule="step", decay_from_epoch=10, decay_every_epochs=5)
    taltrans = recipe.load("as2m", ["variant=original"]).classifier_of({"name": "taltrans"})
    check_settings(taltrans, lr=4e-4, batch_size=448, epochs=10, mixup=0.3, init=None)
    check_settings(taltrans, specaug_time=60, specaug_freq=12)
    esc50 = recipe.load("esc50", ["variant=original"]).classifier_of()
    check_settings(esc50, lr=1e-5, loss="ce", mixup=0, decay_factor=0.85, train_steps=None)
    # Nothing of the parent's variant is kept.
    assert recipe.load("vggsound", ["variant=original"]).classifier_of({"name": "taltrans"}).batch_size == 48


def test_keys_that_exclude_each_other_replace_each_other():
    steps = recipe.load("as20k", ["classifier.train_steps=100", "classifier.warmup_epochs=1"]).classifier
    assert (steps.train_steps, steps.epochs, steps.warmup_steps, steps.warmup_epochs) == (100, None, None, 1)
    epochs = recipe.load("esc10", ["classifier.epochs=2.5"]).classifier
    assert (epochs.train_steps, epochs.epochs, epochs.steps(320), epochs.steps(1)) == (None, 2.5, 50, 1)
    assert recipe.load("esc10").generator.train_steps > 0  # which has no epochs to unset


def test_the_command_line_overrides_per_classifier_settings():
    overrides = ["variant=original", "classifier.name=taltrans"]
    assert recipe.load("as20k", overrides).classifier_of().batch_size == 448
    mine = recipe.load("as20k", [*overrides, "classifier.batch_size=64"])
    assert mine.classifier_of().batch_size == 64
    assert mine.classifier_of({"name": "ast"}).batch_size == 64
    assert mine.classifier_of({"name": "ast", "batch_size": 8}).batch_size == 8  # a line of the grid


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("classifier.accumulate=3", "classifier.accumulate=3"),
        ("generator.accumulate=3", "generator.accumulate=3"),
        ("invert.tokens=false", r"invert\.lora_rank"),
        ("invert.lora_rank=0", r"invert\.lora_rank"),
        ("classifier.average_epochs=[5, 2]", "classifier.average_epochs"),
        ("evaluate.models=[{name: ast, aug: none, lrr: 1}]", r"evaluate\.models\.0: lrr.*'lr'"),
        ("per_classifier={ast: {epochs: -1}}", "per_classifier.ast: epochs"),
        ("classifier={train_steps: 3, epochs: 4}", "classifier.epochs"),
        ("variant=orignal", "variant=orignal"),
        ("variant={paper: 1}", "variant"),
        ("mix={real: false, dose: 0}\nsynth.n=0", "synth.n"),
        ("mix.aplha=0.3", r"mix\.aplha.*'alpha'"),
        ("evaluate.all_real.lrr=1", r"evaluate\.all_real: lrr"),
        ("mix.real=shots=0", r"mix\.real"),
        ("mix.real=share=1.0", r"mix\.real"),
        ("mix.real=shot=4", r"mix\.real"),
        ("mix={real: none, mode: alpha}", r"mix\.mode=alpha"),
        ("mix={real: none, none_of: none}", r"mix\.none_of"),
        ("mix.alpha=1.5", r"mix\.alpha.*1\.5"),
        ("mixx.alpha=0.5", "mixx.*'mix'"),
        ("synth.strength=0", r"synth\.strength"),
        ("data.eval_fold=-1", r"data\.eval_fold"),
        ("evaluate.models=[]", r"evaluate\.models"),
        ("evaluate.seeds=[]", r"evaluate\.seeds"),
        ("evaluate.seeds=0", r"give a list: evaluate\.seeds=\[0\]"),
        ("evaluate.arms=G", r"give a list: evaluate\.arms=\[G\]"),
        ("evaluate.models={name: ast}", r"give a list: evaluate\.models=\["),
        ("evaluate.models=[{name: ast, aug: none, betas: 0.9}]", r"evaluate\.models\.0: "),
        ("evaluate.seeds=[0, 1, 0]", r"evaluate\.seeds: a number is listed twice"),
        ("evaluate.models=[{name: ast}]", r"evaluate\.models\.0\.aug"),
        ("alpha", "'alpha'"),
        ("mix.alpha={", "mix.alpha={"),
        ("mix.tail={classes: [Rain, Rain], shots: 4}", r"mix\.tail\.classes"),
        ("mix.tail={classes: 0, shots: 4}", r"mix\.tail\.classes"),
        ("mix.tail={classes: Rain, shots: 4}", r"mix\.tail\.classes"),
        ("mix.tail={classes: [Rain], shots: 0}", r"mix\.tail\.shots"),
        ("mix.tail={classes: [Rain], shot: 1, shots: 2}", r"mix\.tail\.shot .*shots.*allowed: classes"),
        ("mix={mode: alpha, tail: {classes: 1, shots: 1, fill: true}}", r"mix\.tail\.fill"),
        ("synth.classes=tail", r"synth\.classes=tail.*mix\.tail"),
        ("synth.classes=head", r"synth\.classes"),
        ("synth={plan: captions, strength: 0.6, prompt: names}", r"synth\.plan=captions"),
        ("synth={plan: captions, strength: 1, prompt: tokens}", r"synth\.plan=captions"),
        ("evaluate.primary={model: 9, dose: 160}", "evaluate.primary.model"),
        ("evaluate.primary={model: ast-tiny, dose: 160}", "evaluate.primary.model"),
        ("evaluate.primary={dose: 161}", "evaluate.primary.dose"),
        ("evaluate.primary={model: 0}", "dose"),
        ("evaluate.primary={dose: 160, arm: A+G}", "evaluate.primary.arm"),
        ("evaluate.tune={grid: {}}", r"evaluate\.tune\.grid"),
        ("evaluate.tune={grid: {lr: []}}", r"evaluate\.tune\.grid"),
        ("evaluate.tune={grid: {lr: [0.1]}}", r"evaluate\.tune\.grid"),
        ("evaluate.tune={head: {}}", r"evaluate\.tune\.head"),
        ("evaluate.tune={grid: {lrr: [0.1, 0.2]}}", r"evaluate\.tune\.grid: lrr.*lr"),
        ("evaluate.tune={grid: {lr: [0.1, -1]}}", r"evaluate\.tune\.grid: lr"),
        ("evaluate.tune={grid: {lr: 0.1}}", r"evaluate\.tune\.grid\.lr"),
        ("evaluate.tune={grid: {aug: [none, wave]}}", r"evaluate\.tune\.grid.*aug"),
        ("evaluate.tune={steps: [1, 2]}", r"evaluate\.tune\.steps"),
        ("mix.source=A", r"mix\.source"),
        ("mix.source=R\nmix.mode=alpha", r"mix\.source"),
        ("mix.source=A\nmix.dose=9\nmix.real=none", r"mix\.source"),
        ("fusion.labels=truth", r"fusion\.labels"),
        ("fusion.scorer=none\nfusion.labels=shuffled", r"fusion\.scorer"),
    ],
)
def test_a_wrong_key_or_value_is_refused_in_one_line(override, part):
    with pytest.raises(UsageError, match=part) as caught:
        recipe.load("esc10", override.split("\n"))
    assert "\n" not in str(caught.value)


def test_a_table_changes_a_recipe():
    with pytest.raises(UsageError, match="--base"):
        recipe.load("tables/a11")
    table, base = recipe.load("tables/a11", base="esc10"), recipe.load("esc10")
    assert table.table == "a11"
    assert table.model_copy(update={"table": None}) == base
    assert recipe.load("tables/a11", base="esc10+160G").mix.dose == 160
    assert recipe.load("tables/a11", ["evaluate.seeds=[7]"], base="esc10").evaluate.seeds == (7,)


@pytest.mark.parametrize("name", ["my.yaml", "none/my.yml"])
def test_a_recipe_file_that_is_not_there_is_named_without_the_shipped_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{name}: no such file") as missing:
        recipe.load(name)
    assert "ajbench ls recipes" in str(missing.value) and "as20k" not in str(missing.value)


@pytest.mark.parametrize("name", recipe_tree.shipped())
def test_names_in_shipped_recipes_are_in_the_registries(name):
    loaded = recipe.load(name)
    assert loaded.data.corpus in registry.CORPORA
    assert loaded.codec.name in registry.CODECS
    assert loaded.generator.text_encoder in registry.TEXT_ENCODERS
    assert loaded.evaluate.features in registry.FEATURES
    names = {model.name for model in loaded.evaluate.models} | {loaded.classifier.name}
    assert names <= set(registry.CLASSIFIERS)
    assert all(dose <= loaded.synth.n for dose in loaded.evaluate.doses)


@pytest.mark.parametrize(
    ("expression", "mix"),
    [
        ("esc10", {"real": "all", "dose": 0}),
        ("esc10+320G", {"real": "all", "dose": 320}),
        ("as20k+40kG", {"real": "balanced", "dose": 40_000}),
        ("esc10+320A", {"real": "all", "dose": 320, "source": "A"}),
        ("esc10+1kR", {"real": "all", "dose": 1000, "source": "R"}),
        ("esc10+320A+320G", {"real": "all", "dose": 320, "source": "A+G", "added": 640}),
        ("esc10G", {"real": "none", "dose": recipe.load("esc10").synth.n}),
        ("as20kG", {"real": "none", "none_of": "balanced", "dose": recipe.load("as20k").synth.n}),
    ],
)
def test_mix_expressions(expression, mix):
    loaded = recipe.load(expression)
    assert loaded.name == expression.split("+")[0].removesuffix("G")
    check_settings(loaded.mix, **mix)


@pytest.mark.parametrize(
    ("expression", "override", "real", "baseline"),
    [
        ("esc10", "mix.real=true", "all", "all"),
        ("esc10", "mix.real=false", "none", "all"),
        ("esc10", "mix.real=shots=08", "shots=8", "shots=8"),
        ("esc10", "mix.real=share=.10", "share=0.1", "share=0.1"),
        ("few", "mix.draw=1", "shots=4", "shots=4"),
        ("few+10G", "mix.draw=1", "shots=4", "shots=4"),
        ("fewG", "mix.draw=1", "none", "shots=4"),
        ("few", "mix.real=none", "none", "shots=4"),
        ("few", "mix.real=all", "all", "all"),
        ("made", "mix.draw=1", "none", "share=0.5"),
        ("made+10G", "mix.draw=1", "share=0.5", "share=0.5"),
    ],
)
def test_a_mix_of_synthetic_clips_only_remembers_the_real_clips(
    tmp_path, monkeypatch, expression, override, real, baseline
):
    monkeypatch.setattr(recipe_tree, "SHIPPED", tmp_path)
    (tmp_path / "esc10.yaml").write_text("data: {corpus: mini}")
    (tmp_path / "few.yaml").write_text("mix: {real: shots=4}")
    (tmp_path / "made.yaml").write_text("mix: {real: none, none_of: share=0.5}")
    loaded = recipe.load(expression, [override])
    assert (loaded.mix.real, loaded.mix.baseline) == (real, baseline)


def test_defaults_that_came_later_are_not_part_of_identities():
    then = {"mode": "dose", "real": True, "dose": 0, "alpha": 0.5, "balanced": False, "amplify": 0}
    then |= {"match_steps": 0, "min_fidelity": 0.0}
    assert recipe.fingerprint(Mix()) == recipe.fingerprint(then) == recipe.fingerprint(Mix(draw=3))
    assert recipe.fingerprint(Mix(real="none", dose=3)) == recipe.fingerprint(
        then | {"real": False, "dose": 3}
    )
    few = [Mix(real="shots=4"), Mix(real="shots=4", draw=1), Mix(real="shots=8"), Mix(real="balanced")]
    few += [Mix(dose=3), Mix(dose=3, source="A"), Mix(dose=3, source="R"), Mix(dose=3, source="A+G")]
    assert len({recipe.fingerprint(mix) for mix in [*few, Mix()]}) == 9


@given(
    dose=st.integers(1, 10**6),
    kilo=st.sampled_from(["", "k"]),
    source=st.sampled_from(["G", "A", "R", "A+G"]),
)
def test_dose_and_source_of_a_mix_expression(dose, kilo, source):
    base, mix = recipe.split_mix("esc10" + "".join(f"+{dose}{kilo}{one}" for one in source.split("+")))
    assert base == "esc10"
    assert (mix["dose"], mix["source"]) == (dose * (1000 if kilo else 1), source)
    written = recipe.expression(recipe.Recipe(name="esc10", mix=mix))
    assert recipe.split_mix(written) == (base, mix)


@pytest.mark.parametrize("text", ["mini+160A+320G", "mini+320A+320R", "mini+320G+320A", "mini+320A+320A"])
def test_two_sources_are_augmented_and_generated_clips_of_one_dose(text):
    with pytest.raises(UsageError, match=r"mini\+"):
        recipe.load(text)


def test_a_tail_is_part_of_identities_only_where_it_has_an_effect():
    tail = {"classes": ["dog", "rain"], "shots": 4}
    first, fill = Mix(tail=tail), Mix(tail=tail | {"fill": True})
    same = [first, fill, Mix(tail=tail | {"classes": ("rain", "dog")})]
    assert len({recipe.fingerprint(mix) for mix in same}) == 1
    others = [Mix(tail=tail, draw=1), Mix(tail=tail | {"shots": 5}), Mix(tail=tail | {"classes": 2}), Mix()]
    filled = fill.model_copy(update={"dose": 3}), first.model_copy(update={"dose": 3}), Mix(dose=3)
    assert len({recipe.fingerprint(mix) for mix in (first, *others, *filled)}) == 8
    alone = Mix(real="none", dose=3)
    assert recipe.fingerprint(alone) == recipe.fingerprint(alone.model_copy(update={"tail": first.tail}))
    assert Mix().drawn == [] and first.drawn == fill.drawn != Mix(tail=tail, draw=1).drawn
    assert first.limited and not Mix().limited


def test_the_name_of_a_mix_says_where_its_tail_is_not_that_of_the_run():
    made = recipe.load("esc10+9G", ["mix.tail.classes=[3, 7]", "mix.tail.shots=2"])
    assert made.mix.tail and made.mix.tail.classes == ("3", "7")
    assert recipe.expression(made, made.mix) == "esc10+9G"
    assert (
        recipe.load(*recipe.expression(made).split(" ", 1)[:1], [recipe.expression(made).split(" ", 1)[1]])
        == made
    )
    every = made.model_copy(update={"mix": made.mix.model_copy(update={"tail": None})})
    assert recipe.expression(every, made.mix) == "esc10+9G mix.tail=null"


def test_synthetic_only_takes_all_generated_clips():
    assert recipe.load("esc10G", ["synth.n=77"]).mix.dose == 77
    assert recipe.load("mini", ["mix.real=false"]).mix.dose == recipe.load("mini").synth.n


def test_overrides_reach_nested_keys_and_numbers_may_be_written_as_1e_minus_3():
    overrides = ["mix.alpha=0.3", "mix.mode=alpha", "generator.lr=1e-3", "evaluate.doses=[1, 2]"]
    loaded = recipe.load("mini", overrides)
    assert (loaded.mix.alpha, loaded.mix.mode) == (0.3, "alpha")
    assert loaded.generator.lr == 1e-3
    assert loaded.evaluate.doses == (1, 2)


def test_an_empty_mapping_takes_the_place_of_the_bases(tmp_path):
    probes = "probes: {a: {n: 1}, b: {n: 2}}"
    (tmp_path / "base.yaml").write_text(f"evaluate: {{doses: [7], {probes}}}\n")
    for change, expected in (("{}", set()), ("{a: {n: 3}}", {"a", "b"})):
        (tmp_path / "child.yaml").write_text(f"extends: base\nevaluate: {{probes: {change}}}\n")
        child = recipe.load(str(tmp_path / "child.yaml")).evaluate
        assert (set(child.probes), child.doses) == (expected, (7,))
        overridden = recipe.load(str(tmp_path / "base.yaml"), [f"evaluate.probes={change}"]).evaluate
        assert set(overridden.probes) == expected


def test_extends_changes_only_what_it_says(tmp_path):
    (tmp_path / "base.yaml").write_text("synth: {n: 5, strength: 0.9}\ngenerator: {train_steps: 7}\n")
    (tmp_path / "child.yaml").write_text("extends: base\nsynth: {n: 6}\n")
    child = recipe.load(str(tmp_path / "child.yaml"))
    assert (child.name, child.generator.train_steps) == ("child", 7)
    check_settings(child.synth, n=6, strength=0.9)
    (tmp_path / "shipped.yaml").write_text("extends: mini\ndescription: mine\n")
    mine, mini = recipe.load(str(tmp_path / "shipped.yaml")), recipe.load("mini")
    assert mine.model_copy(update={"name": "mini", "description": mini.description}) == mini


@pytest.mark.parametrize(
    ("text", "named"),
    [("synth: [", "broken.yaml"), ("- a\n- b\n", "broken.yaml"), ("extends: nowhere\n", "'nowhere'")],
)
def test_a_broken_recipe_file_is_named(tmp_path, text, named):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        recipe.load(str(path))


def test_the_fingerprint_is_a_hash_of_the_settings():
    one, same = recipe.load("mini"), recipe.load("mini", ["mix.alpha=0.5"])
    assert recipe.fingerprint(one.mix, "x") == recipe.fingerprint(same.mix, "x")
    assert recipe.fingerprint(one.mix, "x") != recipe.fingerprint(one.mix, "y")
    other = recipe.load("mini", ["mix.alpha=0.4"])
    assert recipe.fingerprint(one.mix) != recipe.fingerprint(other.mix)
    # Pinned: a change would make the finished stages of every user look unfinished.
    assert recipe.fingerprint("a", 1, {"b": [1.5, None]}) == "acfd10361486"


def test_recipes_are_frozen():
    loaded = recipe.load("mini")
    with pytest.raises(ValueError, match="frozen"):
        loaded.mix.alpha = 0.1


def test_dump_keeps_the_order_of_the_sections():
    sections = list(yaml.safe_load(recipe.dump(recipe.load("mini"))))
    assert sections[:4] == ["name", "description", "data", "codec"]


def test_resolve_refuses_an_unknown_name_with_the_near_one():
    with pytest.raises(UsageError, match="did you mean 'ast-tiny'"):
        registry.resolve("classifier", "ast-tny")


def test_every_registered_name_can_be_imported():
    for kind, table in registry.KINDS.items():
        assert all(callable(registry.resolve(kind, name)) for name in table)


def test_the_word_true_names_a_comparison_of_the_section_fusion():
    found = recipe.load("mini", ["fusion.labels=true", "fusion.comparisons=[true, predicted]"]).fusion
    assert (found.labels, found.comparisons) == ("true", ("true", "predicted"))


def test_a_fusion_section_at_its_defaults_does_not_change_the_hash_of_a_recipe():
    plain, fused = recipe.load("mini"), recipe.load("mini", ["fusion.top_k=5"])
    assert "fusion" not in plain.identity()
    assert recipe.fingerprint(fused) != recipe.fingerprint(plain)


def test_a_recipe_without_video_has_the_hash_that_it_had_before_there_was_video():
    plain, other, video = (
        recipe.load("mini", keys)
        for keys in ([], ["data.match=0.2"], ["data.video=tiny_video", "data.match=0.2"])
    )
    assert not {"video", "match"} & (set(plain.data.identity()) | set(plain.identity()["data"]))
    assert recipe.fingerprint(other) == recipe.fingerprint(plain) != recipe.fingerprint(video)
    assert video.identity()["data"]["match"] == 0.2


def test_a_cache_of_decoded_sound_changes_no_hash():
    plain, cached = recipe.load("mini"), recipe.load("mini", ["data.cache=pcm"])
    assert cached.data.cache == "pcm" != plain.data.cache
    assert recipe.fingerprint(plain, plain.data) == recipe.fingerprint(cached, cached.data)


def test_candidates_are_all_combinations_for_heads_and_for_others():
    tune = "evaluate.tune={grid: {epochs: [2, 4], lr: [0.1, 0.2]}, head: {c: [1, 2]}}"
    found = recipe.load("esc10", [tune])
    changed = found.candidates_of(found.classifier_of())
    assert [(one.epochs, one.train_steps, one.lr) for one in changed] == [
        (epochs, None, lr) for epochs in (2, 4) for lr in (0.1, 0.2)
    ]
    head = found.classifier_of({"name": "head", "aug": "none", "options": {"hidden": 8}})
    options = [{"hidden": 8, "c": c} for c in (1, 2)]
    assert [one.options for one in found.candidates_of(head)] == options
    plain = recipe.load("esc10")
    assert plain.candidates_of(head) == [] and "tune" not in plain.identity()["evaluate"]
    assert "tune" in found.identity()["evaluate"]
    assert len(recipe.load("esc10", ["evaluate.tune={}"]).candidates_of(found.classifier_of())) == 6


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("extends: mine", "extends itself"),
        ("extends: other", "extends itself"),
        ("mix: [1]", "mix"),
        ("variants: {paper: 3}", "variants.paper"),
        ("per_classifier: {ast: null}", "per_classifier.ast"),
        ("{1: 2}", "keys and values"),
        ("data: {duration_s: .inf}", "data.duration_s"),
        ("data: {duration_s: 1e300}", "data.duration_s"),
        ("data: {n_clips: 1000000000}", "data.n_clips"),
        ("synth: {n: 1000000000000000000}", "synth.n"),
        ("evaluate: {seeds: [1000000000000]}", "evaluate.seeds"),
        ("generator: {lr: .nan}", "generator.lr"),
        ("name: ../elsewhere", "name"),
        ("name: /elsewhere", "name"),
        ("name: a/./b", "name"),
        ('name: "a\\nb"', "name"),
        (f"evaluate: {{tune: {{grid: {{train_steps: {list(range(1, 1002))}}}}}}}", "tune"),
    ],
)
def test_recipes_that_nobody_meant_are_refused_with_their_key(tmp_path, text, key):
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("extends: mine")
    with pytest.raises(UsageError, match=key):
        recipe.load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    "name",
    ["x" * 5000, "x" * 5000 + ".yaml", "a\0b", "\udcff", "a/" * 3000 + "b.yaml", f"mini+{'9' * 5000}G"],
)
def test_names_that_no_file_can_have_are_unknown_recipes(name):
    with pytest.raises(UsageError) as found:
        recipe.load(name)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(
    "override", ["mix=3", "classifier=[1]", "a." * 2000 + "b=1", "x=" + "[" * 3000, "=1"]
)
def test_overrides_that_nobody_meant_are_refused(override):
    with pytest.raises(UsageError):
        recipe.load("mini", [override])


def test_names_of_files_that_are_not_utf8_have_fingerprints():
    names = [os.fsdecode(b"\xff.wav"), os.fsdecode(b"\xfe.wav")]
    assert len({recipe.fingerprint(name) for name in names}) == 2
