"""The stages of a recipe: what each reads, its fingerprint and folder, and their order.

A stage's fingerprint is the hash of the recipe sections that it reads, the version of its format and the
fingerprints of its inputs. The same command therefore finds the folder
`<work>/<recipe>/<stage>-<fingerprint>/` again, and a change of anything that the result depends on leads to
another folder. Nothing here imports torch before a stage has work to do.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ajbench.core import registry, weights
from ajbench.core.console import counted
from ajbench.core.device import default_workers, worth_starting
from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix, Recipe, fingerprint, probe
from ajbench.data import real_clips
from ajbench.data.corpora.recordings import read_corpus
from ajbench.data.external_clips import ExternalClips
from ajbench.data.manifest import Manifest
from ajbench.generation import pretrained
from ajbench.generation.prompts import with_tokens
from ajbench.pipeline import (
    arms,
    changed_files,
    classifier_stages,
    external_store,
    fold_stages,
    generator_work,
    given_models,
    grid,
    preflight,
    recipe_parts,
)
from ajbench.pipeline.inputs import (
    codec_identity,
    corpus_identity,
    extractor_identity,
    source_identity,
    text_encoder_identity,
    weights_identity,
)
from ajbench.pipeline.places import Places
from ajbench.pipeline.stage import (
    Stage,
    in_order,
    store_mb,
)

# Raised by one when a stage's code changes what it writes: earlier outputs are then made again, not misread.
VERSIONS = {
    "prepare": 2, "decode": 1, "train-gen": 3, "invert": 1, "synth": 2, "train-cls": 4, "eval-cls": 3,
    "eval-gen": 4, "augment": 1, "audio-tokens": 1, "entail": 1, "train-av": 1, "score-av": 1, "tune": 1,
    "audit": 2, "import": 1,
}  # fmt: skip


class Pipeline:
    """The stages of one recipe; nothing is read or computed before it is needed.

    Args:
        recipe: what is done.
        places: where it is done.
        offset: added to the seeds of classifiers; of one of several folds `recipe_parts.offset`.

    Raises:
        UsageError: the recipe names something that does not exist.
    """

    def __init__(self, recipe: Recipe, places: Places, offset: int = 0) -> None:
        registry.check_names(recipe)
        self.recipe, self.places, self.offset = recipe, places, offset
        self.home, self.results = places.work / recipe.name, places.results_of(recipe.name)
        self._counted: dict[Any, int] = {}
        self._drawn: dict[int, Pipeline] = {}
        self.probes = {name: probe(recipe, name, keys) for name, keys in recipe.evaluate.probes.items()}

    def check(self, doses: Sequence[int] = (), manifest: Manifest | None = None) -> None:
        """Check the recipe before any work, as `preflight.check`.

        `manifest`: of the corpus; None: as its reader finds it, which raises MissingError without one.
        """
        added = len(self.external) if self.places.synthetic else None
        preflight.check(self.recipe, manifest or self.manifest, self.places.generator, doses, added)

    @cached_property
    def folds(self) -> list["Pipeline"]:
        """The stages of each fold of `evaluate.folds`; of none, these."""
        folds = self.recipe.evaluate.folds
        offsets = map(recipe_parts.offset, folds) if len(folds) > 1 else [self.offset]
        parts = zip(recipe_parts.of_folds(self.recipe), offsets, strict=False)
        return [Pipeline(one, self.places, offset) for one, offset in parts] or [self]

    @cached_property
    def pools(self) -> list["Pipeline"]:
        """The stages with each other pool of `evaluate.pools` as `generator.pool`; then these."""
        if self.recipe.table or self.places.generator:
            return [self]
        return [*map(self._of, recipe_parts.of_other_pools(self.recipe)), self]

    def drawn(self, seed: int) -> "Pipeline":
        """The stages with the real clips of a training seed: these, unless each draws its own."""
        recipe = recipe_parts.of_seed(self.recipe, seed + self.offset)
        if recipe is self.recipe:
            return self
        return self._drawn.get(seed) or self._drawn.setdefault(seed, self._of(recipe))

    @property
    def draws(self) -> list["Pipeline"]:
        """The stages with each draw of real clips, that of the first seed first."""
        return list({id(one): one for one in map(self.drawn, self.recipe.evaluate.seeds)}.values())

    def _of(self, recipe: Recipe) -> "Pipeline":
        """The stages of a recipe with the same corpus."""
        one = Pipeline(recipe, self.places, self.offset)
        one.manifest = self.manifest
        return one

    def stages(self, jobs: int | None = 1) -> list[Stage]:
        """Return every stage, of all folds, in the order of a run; `jobs` as in `sources`."""
        return fold_stages.stages(self, jobs)

    def sources(self, jobs: int | None = 1) -> list[Stage]:
        """Return the stages before the classifiers, in order.

        Args:
            jobs: most processes that share a synthesis; None: one per core on a CPU, one on a GPU.
        """
        decoded = (self.decoded,) if self.through_codec else ()
        probes = {} if self.recipe.table else self.probes
        sizes = {"": self.recipe.synth.n} | {name: section.n for name, section in probes.items()}
        own = sizes.items() if self.generates else ()
        sets = [self.synth(name, jobs and worth_starting(jobs, n)) for name, n in own]
        sets += [self.external_store] if self.places.synthetic else []
        augmented = any("A" in column.mix.source for column in grid.columns(self.recipe))
        sets += [arms.augment_stage(self)] if augmented else []
        adapted = [need for one in sets for need in one.needs if need.name == "invert"]
        generator = self._own_generator if self.generates else ()
        return in_order([self.prepare, *generator, *adapted, *decoded, *sets])

    @cached_property
    def generates(self) -> bool:
        """Whether clips are generated: for a mix that has them or, without clips from elsewhere, a probe."""
        probed = bool(self.probes) and not self.places.synthetic and not self.recipe.table
        return probed or any(column.mix.adds("G") for column in grid.columns(self.recipe))

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the sets of synthetic clips; that of the recipe's own is empty."""
        own = ("", *self.probes) if self.generates else ()
        return (*own, *((external_store.NAME,) if self.places.synthetic else ()))

    def synthetic_set(self, name: str) -> Stage:
        """Return the stage that makes one of `sets`."""
        return self.external_store if name == external_store.NAME else self.synth(name)

    @cached_property
    def external(self) -> ExternalClips:
        """The clips from elsewhere; errors as `external_store.read`."""
        return external_store.read(self)

    @cached_property
    def external_store(self) -> Stage:
        """Clips from elsewhere, audited and judged → synthetic clip store."""
        return external_store.import_stage(self, classifier_stages.reference_stage(self, all_real=False))

    @cached_property
    def manifest(self) -> Manifest:
        """What the reader of the corpus found."""
        return read_corpus(self.recipe.data, self.places.data)

    def real_clips(self, mix: Mix) -> int:
        """Return how many train clips of the corpus a mix has; errors as `real_clips.places`."""
        key = mix.real, mix.tail, mix.draw
        if key not in self._counted:
            self._counted[key] = len(real_clips.places(mix, self.manifest))
        return self._counted[key]

    @cached_property
    def prepare(self) -> Stage:
        """Corpus → real clip store."""
        recipe, clips = self.recipe, len(self.manifest.rows)
        # These do not change the store, or only by what they make of the manifest.
        data = recipe.data.identity("real_through_codec", "leave_out")
        absent = set[str]()
        inputs = codec_identity(recipe.codec.name), corpus_identity(self.manifest, recipe.data, absent)
        key, path = self.place("prepare", data, recipe.codec, *inputs)
        if changed := changed_files.changed(self.manifest, path, recipe.data):
            key, path = self.place("prepare", data, recipe.codec, *inputs, changed)

        def do() -> None:
            from ajbench.pipeline.prepare import prepare

            changed_files.begin(path)
            how: dict[str, Any] = {"manifest": self.manifest, "absent": absent, "engine": self.places.engine}
            prepare(recipe, self.places.data, path, fingerprint=key, **how)

        def guess() -> dict[str, Any]:
            from ajbench.pipeline.prepare import estimate

            return estimate(recipe, self.manifest)

        about: dict[str, Any] = {"disk_mb": store_mb(recipe, clips), "shared": True, "estimate": guess}
        clips_there = partial(preflight.check_sounds, recipe.data, self.manifest, self.places.data)
        about["checks"] = partial(weights.of_codec, recipe.codec.name), clips_there
        return Stage("prepare", recipe, path, key, counted(clips, "clip"), do, **about)

    @cached_property
    def decoded(self) -> Stage:
        """Real train clips → the same, decoded from their codes."""
        return classifier_stages.decode_stage(self)

    @property
    def through_codec(self) -> bool:
        """Whether a classifier is trained on decoded real clips."""
        return self.recipe.data.real_through_codec or "through_codec" in self.recipe.evaluate.controls

    @cached_property
    def train_gen(self) -> Stage:
        """The generator's pool → latent diffusion U-Net."""
        recipe, prepared, seed = self.recipe, self.prepare, self.recipe.generator.seed
        section, init, other = recipe.generator, recipe.generator.init, recipe.generator.other_store
        source = other or prepared.path
        if init and pretrained.is_local(init):  # a hub id or "sd14" stands for itself
            weights = weights_identity(pretrained.locate(init))
            section = section.model_copy(update={"init": weights})
        pool = given_models.pool_identity(other) if other else prepared.fingerprint
        drawn = recipe.mix.drawn if section.pool == "real" else []
        inputs = pool, *text_encoder_identity(section.text_encoder), *drawn
        inputs += source_identity("text encoder", section.text_encoder)
        inputs += given_models.captions_identity(section)
        key, path = self.place("train-gen", section, *inputs)

        do = partial(generator_work.train, recipe, source, path, fingerprint=key, tracker=self.places.tracker)

        checks: list[Callable[[], object]] = [
            partial(preflight.check_text_encoder, section.text_encoder),
            partial(given_models.check_captions, section, self.manifest),
        ]
        checks += [partial(given_models.check_pool, other, recipe, self.manifest)] if other else []
        checks += [partial(pretrained.locate, init)] if init else []
        checks += [partial(given_models.check_init, init, self.manifest)] if init else []
        needs = () if other else (prepared,)
        about: dict[str, Any] = {"seed": seed, "needs": needs, "distributed": True, "checks": tuple(checks)}
        about |= {"precision": section.precision, "parallel": section.preset == "tiny", "alone": True}
        return Stage("train-gen", recipe, path, key, counted(section.train_steps, "step"), do, **about)

    @cached_property
    def invert(self) -> Stage:
        """Real clips and generator → learned class tokens, LoRA, or both."""
        recipe, prepared, seed = self.recipe, self.prepare, self.recipe.invert.seed
        drawn = recipe.mix.drawn if recipe.adapts_to_real else []
        key, path = self.place("invert", recipe.invert, prepared.fingerprint, self.generator_key, *drawn)

        places = self.generator, prepared.path, path
        do = partial(generator_work.invert, recipe, *places, fingerprint=key, tracker=self.places.tracker)
        parallel = recipe.generator.preset == "tiny"
        about: dict[str, Any] = {"seed": seed, "precision": "auto", "parallel": parallel, "alone": True}
        about["distributed"] = True
        amount = counted(recipe.invert.train_steps, "step")
        needs = (prepared, *self._own_generator)
        return Stage("invert", recipe, path, key, amount, do, needs=needs, **about)

    def synth(self, probe: str = "", processes: int | None = 1, allow_inexact: bool = False) -> Stage:
        """Real clips, generator and tokens → synthetic clip store.

        Args:
            probe: name of the set in `evaluate.probes`; empty: the recipe's own set.
            processes: that share the work; None: as many as pay, at most one per core on a CPU, one on a GPU.
            allow_inexact: resume although threads, device or versions have changed.
        """
        section = self.probes[probe] if probe else self.recipe.synth
        recipe = self.recipe.model_copy(update={"synth": section})
        if section.prompt == "tokens" and not recipe.invert.tokens:
            key = f"evaluate.probes.{probe}.prompt" if probe else "synth.prompt"
            raise UsageError(f"{key}=tokens: invert.tokens=false learns none; set {key}=names, or none")
        adapted = section.prompt == "tokens" or recipe.invert.lora_rank is not None
        if not (adapted and recipe.invert.tokens) and not self.places.generator:  # may have tokens with it
            with_tokens(
                section.negative, {}, f"evaluate.probes.{probe}.negative" if probe else "synth.negative"
            )
        prepared, tokens = self.prepare, (self.invert,) if adapted else ()
        judge: tuple[Stage, ...] = ()
        if section.judge == "reference":
            judge = (classifier_stages.reference_stage(self, all_real=False),)
        weights = judge[0].path if judge else registry.judge_weights(section.judge)
        inputs = prepared.fingerprint, self.generator_key, [stage.fingerprint for stage in (*tokens, *judge)]
        real_guides = recipe.guides_are_real and section.plan != "captions"
        drawn = recipe.mix.drawn if real_guides or section.classes == "tail" else []
        named = section  # a judge counts by its content, not by its path
        if weights and not judge:
            named = section.model_copy(update={"judge": weights_identity(weights)})
        steered = ["negative"] if section.prompt == "none" and section.negative else []
        steered += ["tokens in negative"] if "<" in section.negative else []
        code = extractor_identity(section.judge) if section.judge and not weights else ()
        key, path = self.place("synth", named, *inputs, *drawn, *steered, *code)

        def given() -> dict[str, Any]:
            from ajbench.data.store import ClipStore

            return {
                "recipe": recipe,
                "store": ClipStore.open(prepared.path),
                "generator_dir": self.generator,
                "tokens_dir": tokens[0].path if tokens else None,
                "processes": processes or worth_starting(default_workers(), section.n),
                "judge_weights": weights,
            }

        def estimate() -> dict[str, Any]:
            from ajbench.pipeline.estimates import synthesis_seconds

            return {"seconds": synthesis_seconds(**given())}

        def do() -> None:
            from ajbench.generation.synthesize import synthesize

            how = {"allow_inexact": allow_inexact, "engine": self.places.engine}
            synthesize(**given() | how, out=path, fingerprint=key)

        needs = (prepared, *self._own_generator, *tokens, *judge)
        about: dict[str, Any] = {"what": probe, "seed": section.seed, "needs": needs, "shared": True}
        if section.judge in registry.FEATURES:
            about["checks"] = (partial(preflight.check_features, section.judge),)
        about |= {"disk_mb": store_mb(recipe, section.n), "estimate": estimate}
        return Stage("synth", recipe, path, key, counted(section.n, "clip"), do, **about)

    @property
    def generator(self) -> Path:
        """The folder of the trained generator."""
        return self.places.generator or self.train_gen.path

    @cached_property
    def generator_key(self) -> str:
        """The generator in fingerprints of other stages."""
        return weights_identity(self.generator) if self.places.generator else self.train_gen.fingerprint

    @property
    def _own_generator(self) -> tuple[Stage, ...]:
        return () if self.places.generator else (self.train_gen,)

    def place(self, stage: str, *inputs: Any) -> tuple[str, Path]:
        """Return the fingerprint and the folder of a stage with these inputs."""
        key = fingerprint(stage, VERSIONS[stage], *inputs)
        return key, self.home / f"{stage}-{key}"
