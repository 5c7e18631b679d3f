"""Recipes, options and folders for output that a stranger may have written or that nobody meant."""

import random
from collections.abc import Callable
from pathlib import Path

import hostile_folders
import hostile_sounds
from hostile_special import special

Arguments = list[str]
Kind = Callable[..., Arguments]  # (folder, rng, harm=True); without harm, the same input with nothing wrong
PLAIN = "extends: mini\n"
COMMANDS = ("show", "run", "prepare", "train-gen", "train-cls", "tables")
BIG = (
    "1000000000000000000",
    "1e300",
    "-1",
    "0",
    ".inf",
    ".nan",
    "1e9",
    "9" * 400,
    "true",
    "[]",
    "{}",
    "null",
    "text",
)
KEYS = (
    "data.duration_s",
    "data.n_clips",
    "synth.n",
    "synth.strength",
    "synth.guidance",
    "generator.train_steps",
    "generator.batch_size",
    "generator.max_tokens",
    "generator.lr",
    "invert.vectors",
    "invert.lora_rank",
    "classifier.train_steps",
    "classifier.batch_size",
    "classifier.specaug_time",
    "mix.dose",
    "mix.alpha",
    "mix.amplify",
    "evaluate.bootstrap",
    "evaluate.seeds",
    "evaluate.folds",
    "evaluate.doses",
    "data.snr_db",
    "synth.sampler_steps",
    "synth.micro_batch",
    "synth.shard_size",
    "data.eval_fold",
    "mix.real",
)
SECTIONS = (
    "data",
    "codec",
    "generator",
    "invert",
    "synth",
    "mix",
    "classifier",
    "fusion",
    "evaluate",
    "variants",
    "per_classifier",
    "extends",
    "base",
    "name",
    "table",
    "variant",
)


def _with(text: str) -> Kind:
    def make(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
        (folder / "r.yaml").write_bytes((text if harm else PLAIN).encode(errors="surrogateescape"))
        return asked(rng, "r.yaml")

    return make


def asked(rng: random.Random, recipe: str, *more: str) -> Arguments:
    """Return a command line that reads a recipe, without running a stage."""
    command = rng.choice(COMMANDS)
    if command == "show":
        return ["show", recipe, *more]
    if command == "run":
        return ["run", recipe, "--dry-run", *more]
    return [command, "--recipe", recipe, *more] + (["--dry-run"] if command != "tables" else [])


def bomb(levels: int, width: int) -> str:
    """Return YAML whose aliases stand for width ** levels values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\nclassifier: {{options: {{x: *a{levels - 1}}}}}\nextends: mini\n"


def nested(opening: str, depth: int, closing: str = "") -> str:
    """Return YAML of this depth."""
    return f"extends: mini\nclassifier: {{options: {{x: {opening * depth}1{closing * depth}}}}}\n"


def odd_value(folder: Path, rng: random.Random) -> Arguments:
    """One key of a section, out of its range."""
    key, value = rng.choice(KEYS), rng.choice(BIG)
    section, _, name = key.partition(".")
    (folder / "r.yaml").write_text(f"extends: mini\n{section}: {{{name}: {value}}}\n")
    return asked(rng, "r.yaml")


def odd_override(folder: Path, rng: random.Random) -> Arguments:
    """A `key=value` that nobody would type."""
    key = rng.choice((*KEYS, "a" * 5000, "=", "..", "a." * 2000, "data", "classifier.options.x", "data."))
    value = rng.choice(
        (*BIG, "[" * 3000, "&a [*a]", "!!python/object/apply:os.system [true]", "x" * 10**6, "\udcff")
    )
    return asked(rng, "mini", f"{key}={value}")


def odd_section(folder: Path, rng: random.Random) -> Arguments:
    """A section that is no mapping."""
    value = rng.choice(
        ("text", "[1, 2]", "null", "3", "{1: 2}", "{null: 1}", "[[]]", "2020-01-01", "!!binary aGk=")
    )
    (folder / "r.yaml").write_text(f"{rng.choice(SECTIONS)}: {value}\n")
    return asked(rng, "r.yaml")


def odd_name(folder: Path, rng: random.Random) -> Arguments:
    """A recipe by a name that no file can have."""
    name = rng.choice(
        (
            "x" * 5000,
            "x" * 5000 + ".yaml",
            "a/../" * 2000 + "r.yaml",
            "\udcff.yaml",
            "mini\udcff",
            "/dev/zero.yaml",
            ".yaml",
            "/",
            "..",
            "../../etc/passwd",
            "mini+" + "9" * 5000 + "G",
            "\n.yaml",
            "mini+99999999999999999999kG",
        )
    )
    return asked(rng, name)


def ring(folder: Path, rng: random.Random) -> Arguments:
    """Recipes that extend each other in a ring."""
    size = rng.choice((1, 2, 5))
    for n in range(size):
        (folder / f"r{n}.yaml").write_text(f"extends: r{(n + 1) % size}\n")
    return asked(rng, "r0.yaml")


def long_chain(folder: Path, rng: random.Random) -> Arguments:
    """Two thousand recipes, each extending the next."""
    for n in range(2000):
        (folder / f"r{n}.yaml").write_text(f"extends: r{n + 1}\n")
    (folder / "r2000.yaml").write_text("extends: mini\n")
    return asked(rng, "r0.yaml")


def many_candidates(folder: Path, rng: random.Random) -> Arguments:
    """A grid of 1.6 billion candidates."""
    values = ", ".join(map(str, range(1, 200)))
    keys = ", ".join(
        f"{key}: [{values}]" for key in ("train_steps", "batch_size", "specaug_time", "specaug_freq")
    )
    (folder / "r.yaml").write_text(f"extends: mini\nevaluate: {{tune: {{grid: {{{keys}}}}}}}\n")
    return asked(rng, "r.yaml")


def special_recipe(folder: Path, rng: random.Random) -> Arguments:
    """A pipe, a device or a link in place of a recipe."""
    place = special(folder / "r.yaml", rng)
    return asked(rng, str(place))


def odd_output(folder: Path, rng: random.Random, harm: bool = True) -> Arguments:
    """Outputs onto a folder, below a file, into /proc."""
    (folder / "file").write_text("x")
    (folder / "there").mkdir()
    hostile_sounds.corpus(folder, rng)
    hostile_sounds.table(folder, rng, 0.0)
    place = rng.choice(
        ("there", "file/x", "/proc/x/y", "x" * 300, "x/" * 3000, "/dev/full", "there/\udcff/" * 3, "")
    )
    place = place if harm else "out"
    store, work = str(hostile_folders.made("prepare")), str(hostile_folders.own_work(folder))
    recipe = ("--recipe", str(hostile_folders.GROUND / "r.yaml"))
    pair = ("--gen", store, "--ref", store, "--metrics", "fad", "--bootstrap", "0", "--features", "tiny")
    sets = ("--synth", store, "--train", store, "--eval", store)
    return rng.choice(
        (
            ["export", place, "--clips", store],
            ["run", "--data", "clips/clips.csv", "--dry-run", "--write-recipe", place],
            ["prepare", *recipe, "--work", place],
            ["caption", "--store", store, "--out", place, "--backend", "template"],
            ["audit", *sets, "--train-split", "train", "--eval-split", "eval", "--out", place],
            ["audit", *sets, "--train-split", "train", "--eval-split", "eval", "--report", place],
            ["eval-gen", *pair, "--out", place],
            ["eval-gen", *pair, "--clips", place],
            ["run", *recipe[1:], "--work", work, "--results", place, "--jobs", "1"],
        )
    )


def _or_plain(harmed: Kind) -> Kind:
    """Return the kind that makes a plain recipe without harm."""
    plain = _with(PLAIN)
    return lambda folder, rng, harm=True: harmed(folder, rng) if harm else plain(folder, rng)


HARMED: dict[str, Kind] = {
    "recipe: aliases that grow": lambda f, r: _with(bomb(r.choice((8, 12)), r.choice((6, 9))))(f, r),
    "recipe: deep nesting": lambda f, r: _with(
        nested(*r.choice((("[", 5000, "]"), ("{a: ", 3000, "}"), ("[", 400, "]"))))
    )(f, r),
    "recipe: deep blocks": _with("extends: mini\n" + "\n".join(f"{' ' * n}a:" for n in range(1500))),
    "recipe: alias of itself": _with("extends: mini\nclassifier: &a {options: *a}\n"),
    "recipe: merge of itself": _with("extends: mini\ndata: &a\n  <<: *a\n"),
    "recipe: code": _with("extends: mini\ndata: !!python/object/apply:os.system ['touch ran']\n"),
    "recipe: very long": _with("extends: mini\n# " + "x" * 30_000_000),
    "recipe: many keys": _with(
        "extends: mini\nclassifier:\n  options:\n" + "".join(f"    k{n}: 1\n" for n in range(200_000))
    ),
    "recipe: not text": lambda f, r: _with(r.randbytes(500).decode("latin-1"))(f, r),
    "recipe: zeros": _with("\0" * 1000),
    "recipe: a number with very many digits": _with("extends: mini\nsynth: {n: " + "9" * 100_000 + "}\n"),
    "recipe: odd value": odd_value,
    "recipe: odd override": odd_override,
    "recipe: odd section": odd_section,
    "recipe: odd name": odd_name,
    "recipe: extends in a ring": ring,
    "recipe: extends a long chain": long_chain,
    "recipe: very many candidates": many_candidates,
    "recipe: no regular file": special_recipe,
}
KINDS: dict[str, Kind] = {name: _or_plain(kind) for name, kind in HARMED.items()}
KINDS["options: odd place for output"] = odd_output
