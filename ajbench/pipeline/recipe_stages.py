"""The stages of a recipe: what each reads, the fingerprint and folder that follow from it, and their order.

A stage's fingerprint is the hash of the recipe sections that it reads, the version of its format and the
fingerprints of its inputs. Its folder `<work>/<recipe>/<stage>-<fingerprint>/` is therefore found again by
the same command, and another one is used as soon as anything changes that bears on the result. Nothing here
imports torch before a stage has work to do.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from ajbench.core import registry
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Mix, Recipe, fingerprint
from ajbench.core.schema import Classifier
from ajbench.data.manifest import Manifest
from ajbench.generation import pretrained
from ajbench.pipeline import grid, preflight
from ajbench.pipeline.stage import Stage, in_order
from ajbench.pipeline.workers import Cell

# Raised by one when a stage's code changes what it writes: work of before is then done again, not misread.
VERSIONS = {
    "prepare": 1,
    "decode": 1,
    "train-gen": 2,
    "invert": 1,
    "synth": 1,
    "train-cls": 3,
    "eval-cls": 1,
    "eval-gen": 1,
}
ROWS = "rows.csv"
NOTES = "notes.json"
CLIPS_PER_PROCESS = 50


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        data: the corpus; None where it is rendered.
        work: stage folders are made in `<work>/<recipe>/`.
        results: rows, tables and report go to `<results>/<recipe>/`.
        generator: a trained generator to use instead of the recipe's own.
        tracker: where loss curves go besides metrics.csv.
    """

    data: Path | None = None
    work: Path = Path("work")
    results: Path = Path("results")
    generator: Path | None = None
    tracker: str = "csv"


class Pipeline:
    """The stages of one recipe at given places; nothing is read or computed before it is asked for.

    Args:
        recipe: what is done.
        places: where.

    Raises:
        UsageError: the recipe names something that does not exist.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        preflight.check_names(recipe)
        self.recipe, self.places = recipe, places
        self.home, self.results = places.work / recipe.name, places.results / recipe.name
        self.probes = {
            name: preflight.probe(recipe, name, keys) for name, keys in recipe.evaluate.probes.items()
        }

    def check(self, doses: Sequence[int] = ()) -> None:
        """Refuse, before any work, what would fail after hours for want of clips or classes.

        Args:
            doses: of synthetic clips that will be asked for beside `mix.dose`.
        """
        preflight.check_amounts(self.recipe, self.manifest, doses)
        if self.places.generator:
            preflight.check_generator(self.places.generator, self.recipe, self.manifest)

    def stages(self) -> list[Stage]:
        """Return every stage in the order of a run."""
        cells = [cell.stage() for cell in (*self.bases(), *self.grid())]
        return in_order([*self.sources(), *cells, *self.evaluations()])

    def sources(self, processes: int = 1) -> list[Stage]:
        """Return the stages before the classifiers, in order; up to `processes` share a synthesis."""
        probes = {} if self.recipe.table else self.probes
        sizes = {"": self.recipe.synth.n} | {name: section.n for name, section in probes.items()}
        # A process takes about as long to begin as to generate a few tens of clips.
        sets = [self.synth(name, max(1, min(processes, n // CLIPS_PER_PROCESS))) for name, n in sizes.items()]
        decoded = (self.decoded,) if self.through_codec else ()
        return in_order([self.prepare, *self._own_generator, self.invert, *decoded, *sets])

    def evaluations(self) -> list[Stage]:
        """Return the stages after the classifiers of the grid."""
        measured = self.eval_cls(self.grid())
        return [measured] if self.recipe.table else [measured, self.eval_gen(("", *self.probes))]

    @cached_property
    def manifest(self) -> Manifest:
        """The corpus as its reader sees it."""
        found: Manifest = registry.resolve("corpus", self.recipe.data.corpus)(
            self.recipe.data, self.places.data
        )
        return found

    @property
    def dataset(self) -> str:
        """What rows call the corpus, with the fold that is evaluated."""
        data = self.recipe.data
        folds = {row.fold for row in self.manifest.split("eval")} - {None}
        name = data.corpus if data.subset is None else f"{data.corpus} {data.subset}"
        name = data.subset if data.subset == "esc10" else name  # a corpus of its own
        return f"{name}{f' fold {folds.pop()}' if len(folds) == 1 else ''}"

    @cached_property
    def prepare(self) -> Stage:
        """Corpus → real clip store."""
        recipe, clips = self.recipe, len(self.manifest.rows)
        data = recipe.data.model_dump(mode="json", exclude={"real_through_codec"})  # the store is the same
        inputs = preflight.codec_identity(recipe.codec.name), preflight.corpus_identity(self.manifest)
        key, path = self._place("prepare", data, recipe.codec, *inputs)

        def do() -> None:
            from ajbench.pipeline.prepare import prepare

            prepare(recipe, self.places.data, path, fingerprint=key, manifest=self.manifest)

        def guess() -> dict[str, Any]:
            from ajbench.pipeline.prepare import estimate

            return estimate(recipe, self.manifest)

        size = preflight.store_mb(recipe, clips)
        about: dict[str, Any] = {"disk_mb": size, "shared": True, "estimate": guess}
        return Stage("prepare", recipe, path, key, f"{clips} clips", do, **about)

    @cached_property
    def decoded(self) -> Stage:
        """Real train clips → the same, decoded from their codes."""
        prepared = self.prepare
        key, path = self._place("decode", prepared.fingerprint)

        def do() -> None:
            from ajbench.data.store import ClipStore
            from ajbench.pipeline.prepare import decode_train_split

            decode_train_split(ClipStore.open(prepared.path), path, fingerprint=key)

        clips = len(self.manifest.split("train"))
        size = preflight.store_mb(self.recipe, clips)
        about: dict[str, Any] = {"what": "through codec", "disk_mb": size, "needs": (prepared,)}
        return Stage("prepare", self.recipe, path, key, f"{clips} clips", do, **about)

    @property
    def through_codec(self) -> bool:
        """Whether some classifier hears real clips through the codec."""
        return self.recipe.data.real_through_codec or "through_codec" in self.recipe.evaluate.controls

    @cached_property
    def train_gen(self) -> Stage:
        """Real clips → latent diffusion U-Net."""
        recipe, prepared, seed = self.recipe, self.prepare, self.recipe.generator.seed
        section, init = recipe.generator, recipe.generator.init
        if init and pretrained.is_local(init):  # a hub id or "sd14" stands for itself
            weights = preflight.weights_identity(pretrained.locate(init))
            section = section.model_copy(update={"init": weights})
        inputs = prepared.fingerprint, *preflight.text_encoder_identity(recipe.generator.text_encoder)
        key, path = self._place("train-gen", section, *inputs)

        def do() -> None:
            from ajbench.data.store import ClipStore
            from ajbench.generation.train import train_generator

            about: dict[str, Any] = {"fingerprint": key, "seed": seed, "tracker": self.places.tracker}
            train_generator(recipe, ClipStore.open(prepared.path), path, **about)

        def check() -> None:
            preflight.check_text_encoder(recipe.generator.text_encoder)
            if init:
                pretrained.locate(init)

        about: dict[str, Any] = {"seed": seed, "needs": (prepared,), "distributed": True, "check": check}
        about["precision"] = section.precision
        return Stage("train-gen", recipe, path, key, f"{section.train_steps} steps", do, **about)

    @cached_property
    def invert(self) -> Stage:
        """Real clips and generator → learned class tokens, LoRA, or both."""
        recipe, prepared, seed = self.recipe, self.prepare, self.recipe.invert.seed
        key, path = self._place("invert", recipe.invert, prepared.fingerprint, self.generator_key)

        def do() -> None:
            from ajbench.data.store import ClipStore
            from ajbench.generation.textual_inversion import invert

            about: dict[str, Any] = {"fingerprint": key, "seed": seed, "tracker": self.places.tracker}
            invert(recipe, self.generator, ClipStore.open(prepared.path), path, **about)

        amount = f"{recipe.invert.train_steps} steps"
        needs = (prepared, *self._own_generator)
        return Stage("invert", recipe, path, key, amount, do, seed=seed, needs=needs, precision="auto")

    def synth(
        self,
        probe: str = "",
        processes: int = 1,
        allow_inexact: bool = False,
        engine: Literal["local", "ray"] = "local",
    ) -> Stage:
        """Real clips, generator and tokens → synthetic clip store: the recipe's own, or that of a probe."""
        section = self.probes[probe] if probe else self.recipe.synth
        recipe = self.recipe.model_copy(update={"synth": section})
        if section.prompt == "tokens" and not recipe.invert.tokens:
            key = f"evaluate.probes.{probe}.prompt" if probe else "synth.prompt"
            raise UsageError(f"{key}=tokens: invert.tokens=false learns none; set {key}=names, or none")
        adapted = section.prompt == "tokens" or recipe.invert.lora_rank is not None
        prepared, tokens = self.prepare, (self.invert,) if adapted else ()
        judge = (self.reference().stage(),) if section.judge == "reference" else ()
        weights = judge[0].path if judge else preflight.judge_weights(section.judge)
        inputs = prepared.fingerprint, self.generator_key, [stage.fingerprint for stage in (*tokens, *judge)]
        named = section  # by its content: where a judge lies means nothing
        if weights and not judge:
            named = section.model_copy(update={"judge": preflight.weights_identity(weights)})
        key, path = self._place("synth", named, *inputs)

        def given() -> dict[str, Any]:
            from ajbench.data.store import ClipStore

            return {
                "recipe": recipe,
                "store": ClipStore.open(prepared.path),
                "generator_dir": self.generator,
                "tokens_dir": tokens[0].path if tokens else None,
                "processes": processes,
                "judge_weights": weights,
            }

        def estimate() -> dict[str, Any]:
            from ajbench.pipeline.preview import estimate

            return estimate(**given())

        def do() -> None:
            from ajbench.generation.synthesize import synthesize

            about: dict[str, Any] = {"fingerprint": key, "allow_inexact": allow_inexact, "engine": engine}
            synthesize(**given(), out=path, **about)

        return Stage(
            "synth",
            recipe,
            path,
            key,
            f"{section.n} clips",
            do,
            what=probe,
            seed=section.seed,
            disk_mb=preflight.store_mb(recipe, section.n),
            needs=(prepared, *self._own_generator, *tokens, *judge),
            shared=True,
            estimate=estimate,
        )

    def cell(self, classifier: Classifier, mix: Mix, seed: int, through_codec: bool | None = None) -> Cell:
        """Return one cell: classifier, mix, seed, and whether real clips are heard through the codec."""
        data = self.recipe.data
        if through_codec is not None:
            data = data.model_copy(update={"real_through_codec": through_codec})
        decoded = self.decoded if data.real_through_codec and mix.real else None
        synthetic = self.synth() if mix.mode == "alpha" or mix.dose else None
        base = self._base(classifier, seed) if mix.amplify else None
        inputs = [stage and stage.fingerprint for stage in (self.prepare, decoded, synthetic, base)]
        if classifier.init and Path(classifier.init).is_dir():  # a hub id or "imagenet" stands for itself
            inputs.append(preflight.weights_identity(Path(classifier.init)))
        key, path = self._place("train-cls", classifier, mix, seed, *inputs)
        which = f"{classifier.name} {classifier.aug}"
        recipe = self.recipe.model_copy(update={"data": data, "classifier": classifier, "mix": mix})
        return Cell(
            recipe=recipe,
            label=f"{which}, {grid.expression(recipe)}, seed {seed}",
            seed=seed,
            real=self.prepare.path,
            decoded=decoded.path if decoded else None,
            synthetic=synthetic.path if synthetic else None,
            base=base.path if base else None,
            clips=len(self.manifest.split("train")),
            path=path,
            fingerprint=key,
            tracker=self.places.tracker,
        )

    def grid(self) -> list[Cell]:
        """Return the cells of Table A11: models × mixes × seeds, the mixes' controls among them."""
        return [
            self.cell(model, column.mix, seed, column.through_codec)
            for model, column, seed in product(
                grid.models(self.recipe), grid.columns(self.recipe), self.recipe.evaluate.seeds
            )
        ]

    def bases(self) -> list[Cell]:
        """Return the cells that must be trained before those of the grid: what `mix.amplify` reads."""
        if not self.recipe.mix.amplify:
            return []
        choices = product(grid.models(self.recipe), self.recipe.evaluate.seeds)
        return [self._base(model, seed) for model, seed in choices]

    def train_cls(self, seed: int) -> Stage:
        """The recipe's own mix → its own classifier, and its scores on the evaluation clips."""
        classifier, mix = self.recipe.classifier_of(), self.recipe.mix
        return self.with_needs(self.cell(classifier, mix, seed))

    def with_needs(self, cell: Cell) -> Stage:
        """Return the training of a cell as a stage that names the stages whose folders it reads."""
        needs = [self.prepare]
        if cell.decoded:
            needs.append(self.decoded)
        if cell.synthetic:
            needs.append(self.synth())
        if cell.base:
            needs.append(self._base(cell.recipe.classifier, cell.seed).stage())
        return cell.stage(*needs)

    def trained(self) -> list[Cell]:
        """Return the finished cells: of the grid, and of the recipe's own classifier and mix.

        Raises:
            MissingError: there is none.
        """
        mixes = ((grid.real(self.recipe), False), (self.recipe.mix, None))
        own = [
            self.cell(self.recipe.classifier_of(), mix, seed, through_codec)
            for mix, through_codec in mixes
            for seed in self.recipe.evaluate.seeds
        ]
        cells = {cell.fingerprint: cell for cell in (*self.grid(), *own) if cell.stage().done()}
        if not cells:
            raise MissingError(
                f"{self.home}: no trained classifier of these settings; first run `ajbench train-cls`"
            )
        return list(cells.values())

    def generated(self) -> list[str]:
        """Return the names of the synthetic sets that are finished; the recipe's own is an empty string.

        Raises:
            MissingError: there is none.
        """
        names = [name for name in ("", *self.probes) if self.synth(name).done()]
        if not names:
            raise MissingError(
                f"{self.home}: no synthetic clips of these settings; first run `ajbench synth`"
            )
        return names

    def reference(self) -> Cell:
        """Return the cell that judges generated clips: real clips only, the first augmented classifier."""
        models = grid.models(self.recipe)
        model = next((model for model in models if model.aug == "mx+sp"), models[0])
        return self.cell(model, grid.real(self.recipe), self.recipe.evaluate.seeds[0], through_codec=False)

    def eval_cls(self, cells: Sequence[Cell]) -> Stage:
        """Scores of cells → rows."""
        recipe = self.recipe
        keys = sorted(cell.fingerprint for cell in cells)
        key, path = self._place("eval-cls", recipe.evaluate.bootstrap, keys)

        def do() -> None:
            from ajbench.pipeline.evaluate import measure_cells

            self._record(path, measure_cells(recipe, cells, path, self.dataset))

        needs = tuple(cell.stage() for cell in cells)
        return Stage("eval-cls", recipe, path, key, f"{len(cells)} classifiers", do, needs=needs)

    def eval_gen(self, names: Sequence[str]) -> Stage:
        """Synthetic stores, judged beside real clips → rows; the recipe's own store has an empty name."""
        recipe, section = self.recipe, self.recipe.evaluate
        stores = {name: self.synth(name) for name in names}
        judge = (self.reference().stage(),) if section.features == "reference" else ()
        needs = (self.prepare, *stores.values(), *judge)
        inputs = [(stage.what, stage.fingerprint) for stage in needs]
        key, path = self._place("eval-gen", section.features, section.bootstrap, *inputs)

        def do() -> None:
            from ajbench.pipeline.evaluate import measure_sets

            folders = {name: store.path for name, store in stores.items()}
            weights = judge[0].path if judge else None
            prepared = self.prepare.path
            rows, notes = measure_sets(recipe, prepared, folders, weights, path, self.dataset)
            self._record(path, rows)
            atomic_write(path / NOTES, json.dumps(notes, indent=2, ensure_ascii=False))

        return Stage("eval-gen", recipe, path, key, f"{len(names)} sets of clips", do, seed=0, needs=needs)

    @property
    def generator(self) -> Path:
        """The folder of the trained generator."""
        return self.places.generator or self.train_gen.path

    @cached_property
    def generator_key(self) -> str:
        """What stands for the generator in fingerprints."""
        given = self.places.generator
        return preflight.weights_identity(given) if given else self.train_gen.fingerprint

    @property
    def _own_generator(self) -> tuple[Stage, ...]:
        return () if self.places.generator else (self.train_gen,)

    def _base(self, classifier: Classifier, seed: int) -> Cell:
        return self.cell(classifier, grid.real(self.recipe, amplify=0), seed, through_codec=False)

    def _place(self, stage: str, *inputs: Any) -> tuple[str, Path]:
        key = fingerprint(stage, VERSIONS[stage], *inputs)
        return key, self.home / f"{stage}-{key}"

    def _record(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        from ajbench.core.rows import append_rows

        append_rows(folder / ROWS, rows)
        append_rows(self.home / ROWS, rows)
