"""Recipes: YAML with `extends`, `key=value` overrides and mix expressions, read into frozen, typed sections.

A recipe defines an experiment. Where it runs (device, workers, folders) is not part of it, so that the
fingerprint of a stage changes only if its result could.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ajbench.core import recipe_tree
from ajbench.core.clip_sections import Data, Mix
from ajbench.core.errors import UsageError
from ajbench.core.evaluate_section import Evaluate
from ajbench.core.fusion_section import Fusion
from ajbench.core.recipe_tree import SHIPPED
from ajbench.core.schema import Classifier, CodecSection, Generator, Invert, Synth
from ajbench.core.section import Section, overlay

# Of Table 1 and of the baselines, besides sets of synthetic clips: X are those from elsewhere.
LINES = (
    "X", "real, train split", "real, two halves", "real through the codec", "shuffled codes", "pink noise",
    "real, eval split", "real, same class", "real, another class",
)  # fmt: skip


class Recipe(Section):
    """One experiment, from corpus to table."""

    name: str
    description: str = ""
    data: Data = Data()
    codec: CodecSection = CodecSection()
    generator: Generator = Generator()
    invert: Invert = Invert()
    synth: Synth = Synth()
    mix: Mix = Mix()
    classifier: Classifier = Classifier()
    fusion: Fusion = Fusion()
    evaluate: Evaluate = Evaluate()
    table: Literal["a11", "t1", "t2", "a8", "a2"] | None = Field(
        None, description="run only what this table of the paper needs"
    )
    variant: str = Field("paper", description="settings of the paper, or another variant in the recipe")
    per_classifier: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="classifier name → changed keys of the classifier section"
    )

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, name: str) -> str:
        """Refuse a name that would put the folders of a run elsewhere: stages are in `<work>/<name>/`."""
        parts = name.split("/")
        if len(name) > 120 or not name.isprintable() or any(not one.strip(". ") for one in parts):
            raise ValueError("expected words of up to 120 printable characters, such as esc10 or as2m/t5")
        return name

    @model_validator(mode="after")
    def _classifiers(self) -> "Recipe":
        lines = {f"evaluate.models.{i}": line.model_dump() for i, line in enumerate(self.evaluate.models)}
        named = {f"per_classifier.{name}": {"name": name} for name in self.per_classifier}
        bound = {"evaluate.all_real": self.evaluate.all_real}
        for where, line in {**lines, **named, **bound, "classifier": {}}.items():
            try:
                self.candidates_of(self.classifier_of(line))
            except ValidationError as error:
                raise ValueError(f"{where}: {_first(error)}") from None
        return self

    @model_validator(mode="after")
    def _tail_is_named(self) -> "Recipe":
        if self.synth.classes == "tail" and self.mix.tail is None:
            raise ValueError("synth.classes=tail: there is no mix.tail; set it, or a number of classes")
        return self

    def identity(self) -> dict[str, Any]:
        """Return what fingerprints contain; without `fusion` while that has its defaults."""
        apart = {"fusion"} if self.fusion == Fusion() else set()
        own = {"data": self.data.identity(), "evaluate": self.evaluate.identity()}
        return self.model_dump(mode="json", exclude=apart) | own

    @property
    def adapts_to_real(self) -> bool:
        """Whether class tokens and LoRA are trained on the clips of `mix.real`: the pool is not `train`."""
        return self.generator.pool != "train"

    @property
    def guides_are_real(self) -> bool:
        """Whether guides come from the clips of `mix.real` rather than from the whole train split."""
        return self.adapts_to_real or self.synth.guides == "real"

    def classifier_of(self, line: Mapping[str, Any] | None = None) -> Classifier:
        """Return the classifier section with the changes of `per_classifier`, then of `line`, a grid row."""
        line = line or {}
        special = self.per_classifier.get(line.get("name", self.classifier.name), {})
        return Classifier.model_validate(overlay(overlay(self.classifier.model_dump(), special), line))

    def candidates_of(self, settings: Classifier) -> list[Classifier]:
        """Return the candidates of `evaluate.tune` for a classifier; none if the recipe does not tune.

        Raises:
            ValueError: a key or value that its section does not take, or one that makes it another line of
                Table A11.
        """
        tune, head = self.evaluate.tune, settings.features is not None
        found = []
        for change in tune.candidates(head) if tune else ():
            where = f"evaluate.tune.{'head' if head else 'grid'}"
            try:
                found.append(Classifier.model_validate(overlay(settings.model_dump(), change)))
            except ValidationError as error:
                raise ValueError(f"{where}: {_first(error)}") from None
            if found[-1].line != settings.line:
                raise ValueError(
                    f"{where}: {change} would be another line of Table A11; add it to evaluate.models"
                )
        return found


NONE = (False, "none")  # values of mix.real
_MIX = re.compile(
    r"^(?P<base>.+?)(?:(?P<only>G)|\+(?:(?P<a>\d{1,12}k?)A\+)?(?P<dose>\d{1,12}k?)(?P<source>[GARX]))$"
)


def load(
    expression: str,
    overrides: Iterable[str] = (),
    base: str | None = None,
    tree: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a recipe by shipped name, YAML path or mix expression, then apply `key=value` overrides.

    Mix expressions: `esc10` real clips only, `esc10+320G` plus the first 320 synthetic clips, `as20k+40kG`
    plus the first 40,000, `esc10G` synthetic clips only; `esc10+320A` plus 320 augmented clips, `esc10+320R`
    plus 320 repeated real clips, `esc10+320A+320G` plus 320 of both, `esc10+320X` plus 320 from elsewhere.

    Args:
        expression: name, path or mix expression.
        overrides: `key=value`; `variant=NAME` applies that block of the recipe's `variants` first.
        base: the recipe that `expression` changes if it names no corpus (`tables/a11`); the result keeps the
            base's name and thus its folders. By default the one that the YAML names as `base`, if any.
        tree: the recipe as YAML has it, if it has been read already; `expression` is for messages.

    Raises:
        UsageError: unknown recipe, key or value; the message has its dotted path.
    """
    name, mix = split_mix(expression) if tree is None else (expression, {})
    tree = recipe_tree.read(name) if tree is None else dict(tree)
    default = tree.pop("base", None)
    if base := base or default:
        changes = {key: value for key, value in tree.items() if key not in ("name", "description")}
        name, mix = split_mix(base)
        tree = overlay(recipe_tree.read(name), changes)
    elif tree.get("table"):
        raise UsageError(
            f"recipe {name}: a table of another recipe; name that with --base, such as --base esc10"
        )
    parsed = [recipe_tree.parse_override(override) for override in overrides]
    tree = recipe_tree.with_variant(
        tree, name, next((o["variant"] for o in reversed(parsed) if "variant" in o), None)
    )
    own = {"real": "all", "none_of": "all"} | tree.get("mix", {})
    if mix and "real" not in mix and own["real"] in NONE:
        mix["real"] = own["none_of"]
    tree = overlay(tree, {"mix": mix} if mix else {})
    for override in parsed:
        tree = recipe_tree.overridden(tree, override)
    if tree.get("mix", {}).get("real") in NONE:
        tree = overlay({"mix": {"none_of": own["none_of" if own["real"] in NONE else "real"]}}, tree)
        if not tree["mix"].get("dose"):
            tree = overlay(tree, {"mix": {"dose": tree.get("synth", {}).get("n", Synth().n)}})
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"recipe {expression}: {_explain(error)}") from None


def split_mix(expression: str) -> tuple[str, dict[str, Any]]:
    """Split a mix expression into the name of the recipe and the keys of the mix section that it sets.

    Raises:
        UsageError: two sources other than A and G, or of different doses.
    """
    if expression.endswith((".yaml", ".yml")) or recipe_tree.there(SHIPPED / f"{expression}.yaml"):
        return expression, {}
    match = _MIX.match(expression)
    if not match:
        return expression, {}
    if match["only"]:
        return match["base"], {"mode": "dose", "real": "none"}
    dose, source = int(match["dose"].replace("k", "000")), match["source"]
    if match["a"]:
        source = f"A+{source}"
        if source != "A+G" or int(match["a"].replace("k", "000")) != dose:
            raise UsageError(
                f"{expression}: two sources are A and G at one dose, such as {match['base']}+{dose}A+{dose}G"
            )
    return match["base"], {"mode": "dose", "dose": dose, "source": source}


def expression(recipe: Recipe, run: Mix | None = None) -> str:
    """Return what a user would type for a recipe's mix: the inverse of `split_mix`.

    `run`: the mix of the run that it belongs to, whose tail is not named.
    """
    mix, name = recipe.mix, recipe.name
    if mix.mode == "alpha":
        text = f"{name} mix.alpha={mix.alpha:g}"
    elif not mix.has_real:
        text = f"{name}G"
    else:
        text = name + "".join(f"+{mix.dose}{source}" for source in mix.source.split("+") if mix.dose)
    run = run or Mix()
    if mix.has_real and (mix.real != "all" or run.baseline != "all"):
        text += f" mix.real={mix.real}"
    if mix.has_real and mix.tail != run.tail:
        text += f" mix.tail={json.dumps(mix.tail and mix.tail.model_dump(mode='json'))}"
    if mix.match_steps:
        text += f" mix.match_steps={mix.match_steps}"
    if mix.amplify:
        text += f" mix.amplify={mix.amplify}"
    return f"{text} data.real_through_codec=true" if recipe.data.real_through_codec else text


def dump(recipe: Recipe) -> str:
    """Return the merged recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def fingerprint(*parts: Any) -> str:
    """Hash recipe sections, plain values and the fingerprints of inputs into 12 hexadecimal digits."""
    plain = [part.identity() if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Names of files need not be UTF-8: Python has surrogates for such bytes.
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def settings_of_lines(recipe: Recipe) -> dict[str, str]:
    """Return, for each line of Table A11, the fingerprint of what runs side by side have in common.

    That is everything but what they compare (`mix.real` with its draw, `generator.pool` of the corpus,
    `codec.name`) and how much they measure (folds, seeds, doses, arms, controls). Pools that are other stores
    are not told apart by their size, so they are part of it.
    """
    shared = [
        recipe.data.identity("eval_fold"),
        _without(recipe.codec, "name"),
        _without(recipe.generator, "pool"),
        recipe.invert,
        _without(recipe.synth, "n"),
        recipe.mix.model_dump(mode="json", include={"tail", "balanced", "amplify", "min_fidelity"}),
        recipe.evaluate.tune and recipe.evaluate.tune.model_dump(mode="json"),
        # Not in the identities, as their contents are inputs of stages.
        [recipe.synth.guides, recipe.generator.captions, recipe.generator.caption_kind],
        recipe.evaluate.redraw,
        *([recipe.generator.pool] if recipe.generator.other_store else []),
    ]
    models = [recipe.classifier_of(line.model_dump()) for line in recipe.evaluate.models]
    return {one.line: fingerprint(*shared, one) for one in models or [recipe.classifier]}


def _without(section: Section, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in section.identity().items() if key not in keys}


def own_set(recipe: Recipe) -> str:
    """Return the name of the recipe's own synthetic clips in rows.csv: how they were made."""
    return "img2img" if recipe.synth.strength < 1 else "from noise"


def probe(recipe: Recipe, name: str, changes: Mapping[str, Any]) -> Synth:
    """Return the synth section of a probe: the recipe's own with `evaluate.probes.<name>` laid over it.

    Raises:
        UsageError: a key or value that the section does not take, or the name of another line of Table 1.
    """
    if name in (own_set(recipe), *LINES):
        raise UsageError(f"evaluate.probes.{name}: another line of Table 1 has this name; choose another")
    try:
        return Synth.model_validate(recipe.synth.model_dump() | dict(changes))
    except ValidationError as error:
        raise misfit(f"evaluate.probes.{name}", error, Synth) from None


def misfit(where: str, error: ValidationError, section: type[BaseModel]) -> UsageError:
    """Return the first problem of changes to a section that a recipe has under the key `where`."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:  # keys that contradict each other
        return UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}")
    from ajbench.core.registry import suggest

    if remedy := _as_list(first, f"{where}.{key}"):
        return UsageError(remedy)
    near = suggest(key, section.model_fields) if first["type"] == "extra_forbidden" else ""
    return UsageError(f"{where}.{key}: {first['msg']}{near}")


def _as_list(item: Mapping[str, Any], key: str) -> str:
    """Return how to write the value of a key that takes a list, if that is what is wrong; else ""."""
    if item["type"] not in ("tuple_type", "list_type"):
        return ""
    value = item["input"]
    return f"give a list: {key}=[{value if isinstance(value, int | float | str) else '…'}]"[:240]


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    where = ".".join(str(part) for part in item["loc"])
    if remedy := _as_list(item, where):
        return remedy
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        from ajbench.core.registry import suggest

        message = f"not a key{suggest(where, Classifier.model_fields)}"
    return f"{where}: {message}" if where else message


def _explain(error: ValidationError) -> str:
    from ajbench.core.registry import suggest

    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            section: Any = Recipe
            for part in item["loc"][:-1]:
                section = getattr(section, "model_fields", {}).get(part)
                section = getattr(section, "annotation", None)
                section = next(iter(get_args(section)), section)  # of `Tail | None`
            allowed = list(getattr(section, "model_fields", {}))
            lines.append(
                f"{where} is not a key{suggest(str(item['loc'][-1]), allowed)}; allowed: {', '.join(allowed)}"
            )
        elif remedy := _as_list(item, where):
            lines.append(remedy)
        else:
            # The input of a section whose keys contradict each other would be the whole section.
            found = "" if isinstance(item["input"], Mapping) else f" (found {item['input']!r})"
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {message}{found}"[:240] if where else message)
    return "; ".join(lines)
