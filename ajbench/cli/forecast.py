"""The command `estimate`: time, device hours, disk and price of a recipe on several machines."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ajbench.cli.options import SEEDS, Settings, command
from ajbench.core import console
from ajbench.core.errors import UsageError

app = typer.Typer()


@app.command()
@command(hide=("recipe", "seed", "force", "device", "dry_run"))
def estimate(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression.")],
    base: Annotated[
        str | None, typer.Option("--base", metavar="RECIPE", help="For tables/a11: of this recipe.")
    ] = None,
    machines: Annotated[
        int, typer.Option("--machines", min=1, help="Machines that share a file system.")
    ] = 1,
    gpus: Annotated[int, typer.Option("--gpus", min=0, help="GPUs of each machine; 0: use its cores.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Classifiers at a time on a machine without GPUs (all cores)."),
    ] = None,
    rates: Annotated[
        Path | None,
        typer.Option("--rates", metavar="FILE", help="CSV of benchmarks/gpu.py instead of finished stages."),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price", min=0.0, help="Price of a GPU hour, or of a machine hour without GPUs."),
    ] = None,
) -> None:
    """Estimate how long the rest of a recipe takes on several machines.

    Seconds of a step or clip are those of finished stages of the recipe, whatever their doses, seeds and
    numbers of steps: run a small part first, such as `ajbench run as20k synth.n=64 generator.train_steps=100
    evaluate.seeds=[0] evaluate.doses=[64]`. With --rates they are those that benchmarks/gpu.py measured on a
    GPU. Stages whose rate is unknown are named and left out of the sums. Loading of data is assumed to
    keep up.

    \b
    Examples:
      ajbench estimate mini evaluate.seeds=[0,1,2,3,4] --jobs 2
      ajbench estimate tables/a11 --base as20k --data DIR --machines 4 --gpus 8 --rates gpu.csv --price 2.5
    """
    from ajbench.core.device import default_workers
    from ajbench.pipeline import forecast, pool_stages, preflight

    settings = replace(settings, recipe=name, base=base, dry_run=True)
    recipe = settings.load(*SEEDS)
    if recipe.table not in (None, "a11"):
        raise UsageError(f"tables/{recipe.table}: has no estimate; allowed: a recipe, or tables/a11")
    pipeline = settings.pipeline(recipe)
    pipeline.manifest = preflight.labels(recipe, pipeline.places.data)
    pool_stages.check(pipeline)
    stages = pool_stages.stages(pipeline)
    site = forecast.Site(machines, gpus, jobs or default_workers())
    if rates:
        known, source = forecast.of_benchmark(rates, stages), str(rates)
    else:
        known, source = forecast.of_finished(pipeline.home, "cuda" if gpus else "cpu"), "finished stages"
    found = forecast.lines(stages, known, site, source)
    sums = forecast.total(found, stages, site, price)
    point = None
    if price and sums["price"] is not None:
        whole = sums["price"] + price * forecast.spent(stages)
        point = forecast.point_price(whole, pipeline.results, recipe)
    if point:
        sums |= {"gain": round(point[0], 2), "price_per_point": round(point[1], 2)}
    header = ["stage", "stages", "units", "device_hours", "wall_hours", "source"]
    cells = [[_text(getattr(line, column)) for column in header] for line in found]
    console.emit(sums | {"stages": [vars(line) for line in found]}, table=(header, cells))
    _say(sums, site.devices, "GPU" if gpus else "machine")


def _say(sums: dict[str, object], devices: int, device: str) -> None:
    where = console.counted(devices, device)
    text = f"about {sums['hours']} h on {where}, {sums['device_hours']} {device} hours"
    text = (f"time on {where}: unknown" if sums["hours"] is None else text) + f", {sums['disk_mb']} MB"
    if sums.get("price") is not None:
        text += f"; price {sums['price']}"
    if "price_per_point" in sums:
        text += f"; with what is finished, {sums['price_per_point']} a point of the measured gain "
        text += f"({sums['gain']} points of mAP)"
    console.say(text)
    if unknown := sums["unknown"]:
        names = ", ".join(unknown)  # type: ignore[arg-type]
        console.say(f"without {names}: no finished stage of this kind; run a small part of the recipe first")


def _text(value: object) -> object:
    return "" if value is None else f"{value:,.4g}" if isinstance(value, float) else value
