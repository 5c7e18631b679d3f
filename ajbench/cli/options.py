"""What commands share: options, running a stage, handling of errors, exit codes."""

import functools
import gc
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench import __version__
from ajbench.cli import first_command
from ajbench.cli.guard import accept_interrupts, guarded
from ajbench.core import console
from ajbench.core.errors import UnfinishedError, UsageError
from ajbench.core.files import need_writable
from ajbench.core.registry import RENDERED, load_plugins

if TYPE_CHECKING:
    from ajbench.core.recipe import Recipe
    from ajbench.data.external_clips import ExternalSource
    from ajbench.pipeline.own_data import OwnData
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage

# Common options that commands which only show something do not have.
STAGE_OPTIONS = ("recipe", "data", "work", "results", "generator", "seed", "device", "dry_run", "force")
ONLY_X = ("evaluate.primary=null", "evaluate.arms=[X]")  # compared with --synthetic by default
DEFAULT = "mini"  # recipe of commands without --recipe and --data
SEEDS = ("generator.seed", "invert.seed", "synth.seed")
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression.")]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Parallel processes (default: one per core on a CPU).")
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Share the work among processes here, or by Ray (cluster: RAY_ADDRESS)."),
]
Tracker = Annotated[
    Literal["csv", "tensorboard", "trackio", "wandb"],
    typer.Option("--tracker", help="Where loss curves go besides metrics.csv.", envvar="AJBENCH_TRACKER"),
]


@dataclass(frozen=True)
class Settings:
    """The common options."""

    recipe: str | None
    data: Path | None
    work: Path
    results: Path
    generator: Path | None
    seed: int | None
    device: str
    dry_run: bool
    json: bool
    quiet: bool
    verbose: int
    force: bool
    base: str | None
    budget: str | None
    patterns: dict[str, str | None] | None
    synthetic: "ExternalSource | None"
    overrides: tuple[str, ...]

    @functools.cached_property
    def own(self) -> "OwnData | None":
        """The recipe made for --data where no recipe is named; what was found is printed once."""
        if self.recipe is not None or self.data is None:
            return None
        from ajbench.pipeline import own_data

        self._need_folders()
        both = any(re.match(r"evaluate\.arms=.*\bG\b", one) for one in self.overrides)
        how: dict[str, Any] = {"keep": not self.dry_run, "generate": self.synthetic is None or both}
        how |= {"overrides": self.overrides, "synthetic": self.synthetic}
        how |= {"last": self._last_file, "again": self.patterns is None}
        made = own_data.make(self.data, self.work, self.results, self.budget, self.patterns, **how)
        for line in made.lines:
            console.say(line)
        return made

    @property
    def _last_file(self) -> str:
        from ajbench.pipeline import kept_plans

        return kept_plans.LAST[self.synthetic is not None]

    def keep_run(self, recipe: "Recipe") -> None:
        """Keep the recipe of a run that begins, if it is of own clips, for the commands after it."""
        if self.own:
            seeds = () if self.seed is None else tuple(f"{key}={self.seed}" for key in SEEDS)
            self.own.keep(recipe, self._last_file, (*seeds, *self.overrides))

    def claim_results(self, out: Path, keep: bool = True) -> None:
        """Note in a results folder whose results it has; errors as `results_origin.claim`."""
        from ajbench.core.recipe import split_mix
        from ajbench.pipeline import results_origin

        name = split_mix(self.base or self.recipe or DEFAULT)[0]
        shipped = results_origin.MADE if self.own else results_origin.SHIPPED
        recipe = Path(name) if name.endswith((".yaml", ".yml")) else shipped
        synthetic = self.synthetic.path if self.synthetic else None
        results_origin.claim(out, recipe, self.data, synthetic, keep)

    def load(self, *seeds: str, more: tuple[str, ...] = ()) -> "Recipe":
        """Read the recipe; without one, make it for --data, or take `mini`.

        Args:
            seeds: keys that --seed sets.
            more: `key=value` of other options.

        Raises:
            UsageError: --data is given, and the recipe has no use for it.
        """
        from ajbench.core.recipe import load

        given = () if self.seed is None else tuple(f"{key}={self.seed}" for key in seeds)
        changes = (*given, *more, *self.overrides)
        name, tree = (
            (str(self.own.tree["name"]), self.own.tree) if self.own else (self.recipe or DEFAULT, None)
        )
        recipe = load(name, changes, self.base, tree)
        if self.synthetic and "X" not in (recipe.mix.source, *recipe.evaluate.arms):
            recipe = load(name, (*ONLY_X, *changes), self.base, tree)
        if self.own:
            return recipe
        if self.data and recipe.data.corpus in RENDERED:
            raise UsageError(
                f"--data {self.data}: recipe {recipe.name} renders its clips; leave out one of the two"
            )
        return recipe

    def _need_folders(self) -> None:
        for option, path in (("--work", self.work), ("--results", self.results)):
            if not self.dry_run:
                need_writable(path, option, folder=True)

    def pipeline(self, recipe: "Recipe", tracker: str = "csv", engine: "Engine" = "local") -> "Pipeline":
        """Return the stages of a recipe in the folders that the options name.

        Raises:
            MissingError: the engine is not installed.
        """
        from ajbench.pipeline import recipe_parts
        from ajbench.pipeline.places import Places
        from ajbench.pipeline.recipe_stages import Pipeline

        if engine == "ray":
            from ajbench.core import ray_tasks

            ray_tasks.need()
        self._need_folders()
        data = self.own.root if self.own else self.data
        places = Places(data, self.work, self.results, self.generator, tracker, self.synthetic, engine)
        made = Pipeline(recipe, places)
        if self.own and self.synthetic and max(recipe.evaluate.doses, default=0) > len(made.external):
            fitted = Pipeline(recipe_parts.with_doses_up_to(recipe, len(made.external)), places)
            fitted.manifest, fitted.external = made.manifest, made.external  # not read again
            return fitted
        return made


def show_version(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """The options of `ajbench` itself."""
    # Before torch is imported. By default, OpenMP's threads wait for each other in a busy loop, and keep a
    # core from the thread that they wait for if other programs run (benchmarks/busy_core.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if version:
        console.emit({"version": __version__}, text=__version__)
        raise typer.Exit


def _option(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Common options", **more)


def _settings(
    recipe: Annotated[
        str | None,
        _option(
            "Name, YAML file or mix: esc10, esc10+320G, esc10G (default: made for --data; without, mini).",
            "--recipe",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        _option("Folder, table or archive of the clips (mini needs none).", "--data", metavar="DIR"),
    ] = None,
    work: Annotated[
        Path, _option("Folder for the outputs of stages.", "--work", metavar="DIR", envvar="AJBENCH_WORK")
    ] = Path("work"),
    results: Annotated[
        Path, _option("Folder for rows, tables and report.", "--results", metavar="DIR")
    ] = Path("results"),
    generator: Annotated[
        Path | None,
        _option("Use this trained generator instead of training one.", "--generator", metavar="DIR"),
    ] = None,
    seed: Annotated[
        int | None, _option("Seed of this stage (run: of generator, tokens, synthesis).", "--seed", min=0)
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], _option("Device to use.", "--device")] = "auto",
    dry_run: Annotated[bool, _option("Show what would be done and exit.", "--dry-run")] = False,
    json: Annotated[bool, _option("Print one JSON document.", "--json")] = False,
    quiet: Annotated[bool, _option("Print only results and errors.", "--quiet", "-q")] = False,
    verbose: Annotated[int, _option("Print more messages.", "--verbose", "-v", count=True)] = 0,
    force: Annotated[bool, _option("Redo finished stages.", "--force")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys to change, such as mix.alpha=0.3"),
    ] = None,
) -> None:
    """Never called: its parameters are the common options."""


def command(hide: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn `function(settings, **own options)` into a command with the common options and error handling.

    Args:
        hide: common options that this command does not have; they keep their defaults.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = list(inspect.signature(_settings, eval_str=True).parameters.values())
        defaults = {parameter.name: parameter.default for parameter in common}
        shown = [*own, *(parameter for parameter in common if parameter.name not in hide)]

        @functools.wraps(function)
        def wrapper(**given: Any) -> None:
            mine = {parameter.name: given.pop(parameter.name) for parameter in own}
            values = defaults | dict.fromkeys(("base", "budget", "patterns", "synthetic")) | given
            values["overrides"] = tuple(values["overrides"] or ())
            settings = Settings(**{field.name: values[field.name] for field in fields(Settings)})
            # Of the processes that torchrun launches, only the first prints; all print errors.
            mute = os.environ.get("RANK", "0") != "0"
            console.configure(settings.json, settings.quiet or mute, settings.verbose, mute)
            if settings.device == "cpu":
                # torch and accelerate read these when they are imported, which is later.
                os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
            # Searching for garbage would take a sixth of the time of importing torch and diffusers.
            gc.set_threshold(10_000)
            accept_interrupts()
            load_plugins()
            try:
                function(settings, **mine)
            except UnfinishedError as error:
                name = function.__name__.replace("_", "-")
                raise first_command.told(error, name, settings, mine) from None
            finally:
                console.say_tallies()

        ending = guarded(wrapper)
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown]
        ending.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        ending.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return ending

    return decorate


FIRST = ("tune", "audit", "import", "train-cls")  # without commands; the last judges external clips


def run_stage(settings: Settings, stage: "Stage") -> None:
    """Run one stage unless it is finished, or show the plan.

    Before it, the choice of keys and the import of external clips that it needs, which have no commands.
    """
    from ajbench.pipeline.stage import run_stages, unfinished

    if settings.dry_run:
        show_plan(settings, [*stage.needs, stage], estimate=True)
        return
    if settings.force or not stage.done():
        first = unfinished(need for need in stage.needs if need.name in ("tune", "import"))
        # Cells of a job array need the same ones: one does it, and the others wait.
        run_stages([replace(need, waits=True) for need in first if need.name in FIRST], settings.device)
    ran = bool(run_stages([stage], settings.device, settings.force))
    if not ran:
        console.say(f"nothing to do: {stage.name} is finished")
    document = {"stage": stage.name, "path": stage.path, "fingerprint": stage.fingerprint, "ran": ran}
    console.emit(document | {"seconds": stage.folder.info()["seconds"]}, text=str(stage.path))


def show_plan(
    settings: Settings,
    stages: "list[Stage]",
    estimate: bool = False,
    power: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print the state, amount and disk space of stages.

    Args:
        settings: options of the command.
        stages: in order.
        estimate: also the time of the last one.
        power: what the comparisons of the run can see (`planned_power.planned`).
        more: keys to add to the document.
    """
    from ajbench.pipeline import estimates
    from ajbench.pipeline.stage import lacking

    plan = estimates.describe(settings.work, stages)
    if estimate:
        plan |= estimates.estimate(stages[-1])
    unestimated = [plan["missing"]] if plan.get("missing") else []
    plan["missing"] = list(dict.fromkeys([*unestimated, *lacking(stages)]))
    plan |= ({"power": power} if power else {}) | dict(more or {})
    columns = ["stage", "what", "state", "amount", "disk_mb"]
    if power and power["lacking"]:  # before the many lines of stages that are for nothing
        console.say(power["sentence"])
    console.emit(plan, table=(columns, [[line[name] for name in columns] for line in plan["stages"]]))
    console.say(
        f"{plan['todo']} of {console.counted(len(plan['stages']), 'stage')} to do; "
        f"{plan['disk_mb']} MB needed, {plan['disk_free_mb']} MB free"
    )
    if seconds := plan.get("seconds"):
        console.say(f"about {seconds:.0f} s, extrapolated from one batch")
    for found in ((more or {}).get("tail"), power if power and not power["lacking"] else None):
        if found:
            console.say(found["sentence"])
    for missing in plan["missing"]:
        console.say(f"cannot be run: {missing}")
