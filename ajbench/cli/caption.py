"""Commands of captions: caption, check-captions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli.llm_options import Api, Concurrency, Model, Retries, Threads, TimeoutS, Url
from ajbench.cli.named_clips import refuse_recipe
from ajbench.cli.options import STAGE_OPTIONS, Settings, command
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.files import need_new

if TYPE_CHECKING:
    from ajbench.captions.caption_source import Rows
    from ajbench.captions.visual import Captioner
    from ajbench.captions.writers import Writer

app = typer.Typer()


@app.command()
@command(hide=("work", "results", "generator"))
def caption(
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the captions table.")],
    store: Annotated[
        Path | None, typer.Option("--store", metavar="STORE", help="Caption the clips of this store.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="TABLE", help="Caption the clips of a CSV, Parquet or segment list."
        ),
    ] = None,
    kind: Annotated[
        Literal["audio", "visual", "merge", "all"], typer.Option("--kind", help="Captions to write.")
    ] = "audio",
    backend: Annotated[
        Literal["template", "llamacpp", "openai"],
        typer.Option("--backend", help="What writes sentences: fixed patterns, or a language model."),
    ] = "template",
    captioner: Annotated[
        Literal["given", "transformers"],
        typer.Option(
            "--captioner", help="Visual captions: from column visual_caption, or by an image captioner."
        ),
    ] = "given",
    captioner_model: Annotated[
        Path | None, typer.Option("--captioner-model", metavar="DIR", help="Folder with BLIP, BLIP-2 or GIT.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Examples in a prompt (default: all).")
    ] = None,
    single_class: Annotated[
        bool,
        typer.Option(
            "--single-class-filter/--no-single-class-filter",
            help="One label becomes 'The sound of [CLASS]' without the model.",
        ),
    ] = True,
    exclude: Annotated[
        Path | None,
        typer.Option("--exclude", metavar="FILE", help="List of clips or recordings to leave out."),
    ] = None,
    include_eval: Annotated[
        bool,
        typer.Option("--include-eval", help="Caption val and eval clips too; never to train a generator on."),
    ] = False,
    max_fallback: Annotated[
        float,
        typer.Option("--max-fallback", min=0, max=1, help="Largest share of unusable answers in a chunk."),
    ] = 0.05,
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Clips in a chunk.")] = 6000,
    model: Model = None,
    url: Url = None,
    api: Api = None,
    concurrency: Concurrency = None,
    retries: Retries = None,
    timeout_s: TimeoutS = None,
    threads: Threads = None,
) -> None:
    """Write captions of clips from labels and video frames.

    Audio captions are made of labels with the prompts of Table A3, visual captions of frames (Table A4), and
    merges of both (Table A5). Without --store and --labels, the clips of the recipe are captioned. Val and
    eval clips are left out. An interrupted run resumes with the chunk it was at.

    \b
    Examples:
      ajbench caption --recipe mini --out captions
      ajbench caption --store DIR --backend llamacpp --out captions
    """
    from ajbench.captions.caption_job import Job
    from ajbench.captions.caption_source import Clips
    from ajbench.captions.caption_table import KINDS
    from ajbench.captions.openai_server import OpenAIServer

    rows, name, clip_s = _source(settings, store, labels)
    clips = Clips(rows, name, include_eval, exclude, videos=captioner == "transformers")
    if settings.dry_run:
        count = clips.count
        plan: dict[str, Any] = {
            "clips": count.clips,
            "single_class": count.single,
            "without_labels": count.unlabelled,
        }
        plan |= {"excluded": count.excluded, "chunks": -(-count.clips // chunk)}
        console.emit(plan, table=(["what", "planned"], [[what, str(n)] for what, n in plan.items()]))
        return
    options: dict[str, Any] = {
        "model": model,
        "url": url,
        "api": api,
        "concurrency": concurrency,
        "retries": retries,
    }
    options |= {"timeout_s": timeout_s, "threads": threads}
    writer, about = _writer(backend, shots, settings.seed or 0, options)
    job = Job(
        kinds=KINDS if kind == "all" else (kind,),
        writer=writer,
        captioner=None
        if kind == "audio"
        else _captioner(captioner, captioner_model, settings.device, clip_s),
        about=about,
        single_class=single_class,
        max_fallback=max_fallback,
        chunk=chunk,
    )
    found, ran = job.run(clips, out, settings.force)
    if not ran:
        console.say(f"nothing to do: {out} is finished")
    elif isinstance(server := getattr(writer, "backend", None), OpenAIServer):
        console.say(server.summary())
    counts = found["counts"]
    for reason, n in (counts["excluded"] | counts["fallbacks"]).items():
        console.detail(f"{reason}: {console.counted(n, 'clip')}")
    left_out, fallbacks = sum(counts["excluded"].values()), sum(counts["fallbacks"].values())
    console.say(
        f"{console.counted(counts['clips'], 'clip')} ({console.counted(left_out, 'clip')} excluded), "
        f"{console.counted(fallbacks, 'fall-back caption')}"
    )
    console.emit({"path": out, "ran": ran, "fingerprint": found["fingerprint"], **counts}, text=str(out))


@app.command()
@command(hide=(*STAGE_OPTIONS, "overrides"))
def check_captions(
    settings: Settings,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Folder of a captions table.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of captions.html and captions.csv (default: none)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite these files.")] = False,
) -> None:
    """Check captions for invented sounds, echoes, duplicates.

    An invented sound is an AudioSet class that a caption names and no label implies. With --out, a page and a
    CSV list the worst captions.

    \b
    Examples:
      ajbench check-captions DIR --out DIR
      ajbench check-captions DIR --json
    """
    from ajbench.captions import checks
    from ajbench.reporting import caption_page

    if out:
        for name in caption_page.FILES:
            need_new(out / name, "--out", force)
    found = checks.check(table)
    if out:
        for path in caption_page.write(table, found, out):
            console.say(f"written: {path}")
    summaries = {kind: report.summary() for kind, report in found.items()}
    lines = [[kind, *summary.values()] for kind, summary in summaries.items()]
    document = {
        kind: {**summaries[kind], "top_words": dict(report.top_words()), "repeated": report.repeated}
        for kind, report in found.items()
    }
    console.emit(document, table=(["kind", *next(iter(summaries.values()))], lines))


def _source(settings: Settings, store: Path | None, labels: Path | None) -> "tuple[Rows, str, float | None]":
    """Return what reads the clips, its name, and the length in s to which clips are cut, if they are."""
    from ajbench.captions.caption_source import of_store, of_table
    from ajbench.data import audio
    from ajbench.data.shards import read_meta

    if store and labels:
        raise UsageError("--store and --labels: give one of them")
    if store or labels:
        refuse_recipe(settings, "--store" if store else "--labels")
    if store:
        return of_store(store), str(store), read_meta(store).clip_samples / audio.SAMPLE_RATE
    if labels:
        return of_table(labels), str(labels), None
    pipeline = settings.pipeline(settings.load())
    manifest, recipe = pipeline.manifest, pipeline.recipe
    return lambda: manifest.rows, settings.recipe or recipe.name, recipe.data.duration_s


def _writer(
    backend: str, shots: int | None, seed: int, options: dict[str, Any]
) -> "tuple[Writer, dict[str, Any]]":
    """Return what writes sentences, and all that affects them."""
    from ajbench.captions import backends
    from ajbench.captions.writers import LanguageModel, Template

    given = [name for name, value in {**options, "shots": shots}.items() if value is not None]
    if backend == "template":
        if given:
            raise UsageError(
                f"--{given[0].replace('_', '-')}: has no effect with --backend template; omit it"
            )
        return Template(seed), {"name": backend, "seed": seed}
    model = backends.load(backend, **options)
    about = {
        "name": backend,
        "seed": seed,
        "model": model.model,
        "model_hash": model.model_hash,
        "shots": shots,
    }
    return LanguageModel(model, shots, seed), about


def _captioner(name: str, model: Path | None, device: str, clip_s: float | None) -> "Captioner":
    from ajbench.captions import visual

    if name == "given":
        if model:
            raise UsageError("--captioner-model: has no effect with --captioner given; omit it")
        return visual.Given()
    if model is None:
        raise UsageError(
            "--captioner transformers needs --captioner-model, a folder with BLIP, BLIP-2 or GIT"
        )
    return visual.FrameCaptioner(model, device, clip_s)
