"""A recipe for clips that have none: what was found, and sizes that fit the clips and a budget of time.

The recipe is kept (`kept_plans`), so that a repeated command goes on with the same sizes. A run without a
generator has sizes of its own that use the time, unless it comes after one with a generator: then it has the
same sizes as that.
"""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import absolute, atomic_write
from ajbench.core.recipe import Data, Recipe, fingerprint, load
from ajbench.core.recipe_tree import shipped
from ajbench.data import archive, audio, reasons
from ajbench.data.corpora import detection
from ajbench.data.corpora.recordings import read_corpus
from ajbench.data.corpora.unlisted import unlisted
from ajbench.data.external_clips import ExternalSource
from ajbench.data.manifest import Manifest, Problem, Row, write_table
from ajbench.pipeline import kept_plans, name_patterns, recipe_parts
from ajbench.pipeline.budget import Sizes, budget_seconds, choose, measured_speed, seconds_of
from ajbench.pipeline.data_summary import classes, found_lines, plan_lines

DEFAULT = "30m"  # budget
LOOKED_AT = 48  # sound files whose headers are read
SHORTEST_S, LONGEST_S = 1.26, 10.08  # of clips
LEFT_OUT = "left_out.csv"
FEW = 8  # classes that are named


@dataclass(frozen=True)
class OwnData:
    """The recipe made for someone's clips.

    Attributes:
        root: of the corpus, as its reader takes it.
        tree: the recipe as it would be written in YAML.
        lines: what was found, what is done and how long that takes, one line each.
        found: the same for programs.
        manifest: the clips.
        home: folder that recipes are kept in.
        heading: of a kept recipe.
        left_out: files and lines of tables that are not among them, and why.
    """

    root: Path
    tree: dict[str, Any]
    lines: tuple[str, ...]
    found: dict[str, Any]
    manifest: Manifest
    home: Path
    heading: str
    left_out: tuple[Problem, ...] = ()

    @property
    def yaml(self) -> str:
        """The recipe as YAML."""
        return f"# ajbench run THIS_FILE --data {self.root}\n" + kept_plans.as_yaml(self.tree)

    def write(self, path: Path) -> None:
        """Write the recipe as YAML."""
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, self.yaml)

    def keep(self, recipe: Recipe, file: str, keys: Sequence[str]) -> None:
        """Keep the recipe of a run in a file of `home`, with the `key=value` that made it of the plan."""
        tree = recipe.model_dump(mode="json")
        kept_plans.keep_run(self.home / file, self.heading, tree, keys)


def make(
    path: Path,
    work: Path,
    results: Path,
    budget: str | None = None,
    patterns: Mapping[str, str | None] | None = None,
    keep: bool = True,
    generate: bool = True,
    overrides: Sequence[str] = (),
    synthetic: ExternalSource | None = None,
    last: str = kept_plans.LAST[0],
    again: bool = False,
) -> OwnData:
    """Return a recipe for the clips at `path`.

    Args:
        path: folder or file.
        work: the recipe is kept there.
        results: with `work`, the names of earlier recipes.
        budget: time that the run may take, such as 30m; None: as the last time, at first 30m.
        patterns: `label` and `group`, by which classes and recordings are found in names of files, as
            `name_patterns.data_keys` takes them; None: as the last time.
        keep: whether to write the plan, and the list of what is left out.
        generate: whether clips are generated, rather than taken from elsewhere.
        overrides: `key=value` that the run changes; the lines are about it, the recipe is without.
        synthetic: clips from elsewhere; the lines are about as many as there are, the recipe is not.
        last: file that has the recipe of the last run.
        again: take that recipe, if there is one, instead of the plan.

    Raises:
        MissingError: there are no clips, or too few.
        UsageError: the clips are laid out in a way that is not read, the budget is too small, a pattern is no
            regular expression, or an override no key; or the folders of work or results are inside that of
            the clips. Or none of the clips from elsewhere has a class.
    """
    wanted = None if budget is None else budget_seconds(budget)
    found = detection.detect(path)
    for option, folder in (("--work", work), ("--results", results)):
        if found.data["corpus"] == "folder" and absolute(folder).is_relative_to(found.root):
            raise UsageError(
                f"{option} {folder}: is inside --data {path}, where sounds of the run would be taken for "
                "clips; give folders elsewhere with --work DIR and --results DIR"
            )
    name = _name(path, found.root, work, results)
    files = kept_plans.PLANS if generate else reversed(kept_plans.PLANS)
    plan, other = (work / name / file for file in files)
    found = name_patterns.applied(found, patterns or {}, kept_plans.last_data(plan, other))
    manifest = read_corpus(Data(**found.data), found.root)
    data, manifest = _divided(found, manifest)
    problems = (*manifest.problems, *unlisted(path, found, manifest))
    rates, lengths = _headers(manifest.rows)
    data["duration_s"] = _duration(lengths)
    key = fingerprint([(row.clip_id, row.labels, row.split, row.fold) for row in manifest.rows], data)
    tree, known = kept_plans.planned(plan, key, wanted)
    if tree is None and not generate:
        tree, of_other = kept_plans.planned(other, key, wanted)
        known = of_other or known
    train, evaluated = (manifest.split(split) for split in ("train", "eval"))
    divided_by_fold = "eval_fold" in data
    folds = sorted({row.fold for row in manifest.rows if row.fold is not None}) if divided_by_fold else []
    recordings = {(row.fold, row.recording or row.clip_id) for row in manifest.rows}
    about: dict[str, Any] = {
        "train": len(train), "eval": len(evaluated), "clips": len(manifest.rows), "folds": folds,
        "duration_s": data["duration_s"], "classes": len(manifest.label_set),
        "recordings": [sum(fold == k for k, _ in recordings) for fold in folds],
    }  # fmt: skip
    if tree is None:
        seconds = wanted or known.get("budget") or budget_seconds(DEFAULT)
        speed = measured_speed(data["duration_s"], len(manifest.label_set))
        sizes = choose(about, seconds, speed, firm=wanted is not None, generate=generate)
        tree = _tree(name, path, data, sizes)
        known = {"budget": seconds, "speed": speed}
        if keep:
            kept_plans.write(plan, kept_plans.heading(found.root.resolve(), key, known), tree)
    if keep and problems:
        plan.parent.mkdir(parents=True, exist_ok=True)
        columns = [item.name for item in fields(Problem)]
        cells = ([getattr(problem, name) for name in columns] for problem in problems)
        write_table(plan.with_name(LEFT_OUT), columns, cells)
    of_run = kept_plans.last_run(plan.with_name(last), key) if again else None
    tree = of_run or tree
    recipe = load(str(plan.with_name(last)) if of_run else name, overrides, tree=tree)
    manifest = _as_evaluated(recipe, data, manifest, found.root)
    about |= {split: len(manifest.split(split)) for split in ("train", "eval")}
    generate = any("G" in arm for arm in recipe.evaluate.arms) if of_run else generate
    added = synthetic.read(manifest, recipe.data) if synthetic else None
    recipe = recipe_parts.with_doses_up_to(recipe, len(added)) if added else recipe
    given = tree["evaluate"]["seeds"] != [*recipe.evaluate.seeds]
    parts = {} if again else seconds_of(recipe, about, known["speed"], generate)
    lines = (
        *found_lines(path, found.layout, manifest, problems, rates, lengths),
        *([f"list of what is left out: {plan.with_name(LEFT_OUT)}"] if keep and problems else []),
        *([f"synthetic: {added.summary}"] if added else []),
        *plan_lines(recipe, parts, known["budget"], generate, given),
        *_of_last_run(plan.with_name(last), of_run is not None, again or bool(overrides)),
    )
    document = {
        "data": str(path), "layout": found.layout, "name": name, "classes": classes(manifest),
        "train": about["train"], "eval": about["eval"], "folds": folds,
        "left_out": reasons.counts(problems),
        "sample_rates": dict(rates), "seconds": _total(parts), "parts": parts,
        "budget_seconds": known["budget"], **({"synthetic": added.counts} if added else {}),
    }  # fmt: skip
    head = kept_plans.heading(found.root.resolve(), key, known)
    return OwnData(found.root, tree, lines, document, manifest, plan.parent, head, problems)


def _of_last_run(file: Path, taken: bool, other: bool) -> list[str]:
    """Return what to say of the recipe of the last run: that it is taken, or that its `key=value` are not.

    `other`: this is no run, or one that has `key=value` of its own.
    """
    if taken:
        return [f"recipe: that of the last run, {file}, with the KEY=VALUE given now"]
    keys = kept_plans.keys_of(file)
    if other or not keys:
        return []
    return [f"recipe: the plan, without the KEY=VALUE of the last run; they were {shlex.join(keys)}"]


def _divided(found: detection.Found, manifest: Manifest) -> tuple[dict[str, Any], Manifest]:
    """Return the data section with the fold to evaluate, and the corpus divided by it.

    Raises:
        MissingError: no choice leaves two classes to train on and to evaluate.
    """
    folds = sorted({row.fold for row in manifest.rows if row.fold is not None})
    # Clips that have folds and splits of their own keep the splits.
    by_fold = (
        bool(folds)
        and not manifest.split("val")
        and manifest.split("eval")
        == [row for row in manifest.rows if row.fold == manifest.split("eval")[0].fold]
    )
    if not by_fold:
        _need_classes(manifest, found)
        return dict(found.data), manifest

    def shared(fold: int) -> tuple[int, int]:
        sides: tuple[set[str], set[str]] = set(), set()
        for row in manifest.rows:
            sides[row.fold == fold].update(row.labels)
        return len(sides[0] & sides[1]), -len(sides[1] - sides[0])

    best = max(reversed(folds), key=shared)
    data = {**found.data, "eval_fold": best}
    manifest = read_corpus(Data(**data), found.root)
    _need_classes(manifest, found)
    return data, manifest


def _total(parts: Mapping[str, float | None]) -> int | None:
    known = [seconds for seconds in parts.values() if seconds is not None]
    return round(sum(known)) if len(known) == len(parts) else None


def _as_evaluated(recipe: Recipe, data: Mapping[str, Any], manifest: Manifest, root: Path) -> Manifest:
    """Return the corpus divided by the fold that a run evaluates, which need not be that of the plan."""
    folds, present = recipe.evaluate.folds, {row.fold for row in manifest.rows}
    fold = folds[0] if len(folds) == 1 else recipe.data.eval_fold
    if fold == data.get("eval_fold") or fold not in present:  # one that is not there is refused later
        return manifest
    return read_corpus(Data(**{**data, "eval_fold": fold}), root)


def _need_classes(manifest: Manifest, found: detection.Found) -> None:
    has = {
        split: {label for row in manifest.split(split) for label in row.labels} for split in ("train", "eval")
    }
    if len(has["train"] & has["eval"]) > 1:
        return
    counts = classes(manifest)
    few = ", ".join(f"{name}: {n}" for name, n in list(counts.items())[-FEW:])
    more = "add clips, to about 5 or more of each class"
    if len(counts) == 1 and found.data["corpus"] == "folder":
        more = f"{name_patterns.with_one_class(found.data, manifest)}; or {more}"
    raise MissingError(
        f"--data {found.root}: a run needs clips of at least 2 classes both to train on and to evaluate; "
        f"found {counted(len(manifest.rows), 'clip')} of {counted(len(counts), 'class')} ({few}); "
        f"{more}"
    )


def _headers(rows: Sequence[Row]) -> tuple[Counter[int], list[float]]:
    """Return the sample rates in Hz and durations in seconds of some files, from all over the corpus."""

    def look(row: Row) -> tuple[int, float] | None:
        try:
            with archive.local(row.path) as path:
                rate, _, frames = audio.probe(path)
        except (audio.AudioError, OSError):
            return None
        return rate, row.duration_s or max(0.0, frames / rate - row.start_s)

    stride = -(-len(rows) // LOOKED_AT)
    with ThreadPoolExecutor(4) as pool:
        found = [one for one in pool.map(look, rows[::stride]) if one]
    return Counter(rate for rate, _ in found), sorted(seconds for _, seconds in found)


def _duration(lengths: Sequence[float]) -> float:
    """Return the length of a clip in seconds that nine of ten files do not exceed, within bounds."""
    unit = audio.FRAME_MULTIPLE * audio.HOP / audio.SAMPLE_RATE
    usual = float(np.quantile(lengths, 0.9)) if lengths else 5.0
    whole = np.ceil(min(max(usual, SHORTEST_S), LONGEST_S) / unit - 1e-6)
    return round(float(whole) * unit, 2)


def _name(path: Path, root: Path, work: Path, results: Path) -> str:
    """Return the name of the recipe: that of the data, with a hash where another corpus has the name."""
    given = path.resolve()
    words = (
        given.parent.name
        if given.is_file() and given.stem in ("clips", "manifest", "metadata")
        else given.stem
    )
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "clips"
    root = root.resolve()  # the same clips, whatever link leads to them
    digest = hashlib.sha256(str(root).encode(errors="surrogateescape")).hexdigest()[:4]

    def taken() -> bool:
        if slug in shipped():
            return True
        files = (work / slug / file for file in kept_plans.PLANS)
        heads = [head for file in files if (head := kept_plans.head_of(file))]
        if heads:
            return any(Path(head["data"]).resolve() != root for head in heads)
        return (results / slug).exists()

    return f"{slug}-{digest}" if taken() else slug


def _tree(name: str, path: Path, data: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    generator, classifier = sizes.generator_steps, sizes.classifier_steps
    models = [{"name": "taltrans-small", "aug": "mx+sp"}, {"name": "taltrans-small", "aug": "none"}]
    return {
        "name": name,
        "description": f"Does synthetic audio help on {path.resolve().name}?",
        "data": data,
        "generator": {
            "preset": "tiny",
            "prediction": "v_prediction",
            "train_steps": generator,
            "lr": 1e-3,
            "warmup_steps": max(5, generator // 30),
            "ema_decay": round(max(0.9, 1 - 6 / generator), 4),
        },
        "invert": {"train_steps": sizes.invert_steps},
        "synth": {"n": sizes.n, "strength": 0.6, "guidance": 3.0, "sampler_steps": sizes.sampler_steps},
        "classifier": {
            "train_steps": classifier,
            "lr": 2e-3,
            "warmup_steps": max(5, classifier // 10),
            # A quarter of a clip at most, as with the default in clips of 5.04 s.
            "specaug_time": min(48, round(48 * data["duration_s"] / 5.04)),
        },
        "evaluate": {
            "models": models[: sizes.models],
            "doses": list(sizes.doses),
            "synthetic_only": sizes.synthetic_only,
            "seeds": list(range(sizes.seeds)),
            "folds": list(sizes.folds),
            "published": "none",
        },
    }
