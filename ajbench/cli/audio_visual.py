"""Commands of audio-visual models: entail, train-av, score-av."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli import one_fold
from ajbench.cli.llm_options import Api, Concurrency, Model, Retries, Threads, TimeoutS, Url
from ajbench.cli.named_clips import refuse_recipe
from ajbench.cli.options import Settings, Tracker, command, run_stage, show_plan
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.files import lock, need_new

if TYPE_CHECKING:
    from ajbench.captions.entailment import Scorer

app = typer.Typer()
LLM_DEFAULTS = (
    "backend",
    "prompt",
    "repeats",
    "seed",
    "max_fallback",
)  # options of --scorer llm that are never None


def _option(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, **more)


@app.command()
@command(hide=("results", "generator"))
def entail(
    settings: Settings,
    out: Annotated[Path, _option("File of scores.", "--out", metavar="FILE")],
    store: Annotated[
        Path | None,
        _option("Score the clips of this store (default: the recipe's).", "--store", metavar="DIR"),
    ] = None,
    captions: Annotated[
        Path | None,
        _option("Captions table with visual captions (default: the corpus').", "--captions", metavar="DIR"),
    ] = None,
    scorer: Annotated[
        str,
        _option(
            "minilm, e5, sentence-t5, bert, llm; several with commas; bert=DIR for a folder.", "--scorer"
        ),
    ] = "minilm",
    comparison: Annotated[
        str, _option("predicted, noisy-or, true, clap, overlap; several with commas.", "--comparison")
    ] = "predicted",
    classifier: Annotated[
        Path | None, _option("Audio model of these classes.", "--classifier", metavar="DIR")
    ] = None,
    video_scores: Annotated[
        Path | None, _option("overlap: predictions of a video model.", "--video-scores", metavar="FILE")
    ] = None,
    top_k: Annotated[int, _option("Predicted classes that count.", "--top-k", min=1)] = 3,
    page: Annotated[Path | None, _option("Folder of entailment.html.", "--page", metavar="DIR")] = None,
    backend: Annotated[
        Literal["llamacpp", "openai"], _option("llm: what runs it.", "--backend")
    ] = "llamacpp",
    prompt: Annotated[
        Literal["entailment_text", "entailment_single", "entailment_multi"],
        _option("llm: of the body text, Table A6 or Table A7.", "--prompt"),
    ] = "entailment_multi",
    repeats: Annotated[int, _option("llm: repeats, whose spread is kept.", "--repeats", min=1)] = 1,
    shots: Annotated[
        int | None, _option("llm: examples in a prompt (default: all).", "--shots", min=0)
    ] = None,
    max_fallback: Annotated[
        float, _option("llm: largest share of unusable answers.", "--max-fallback", min=0, max=1)
    ] = 0.05,
    model: Model = None,
    url: Url = None,
    api: Api = None,
    concurrency: Concurrency = None,
    retries: Retries = None,
    timeout_s: TimeoutS = None,
    threads: Threads = None,
) -> None:
    """Score how well visual captions fit the sound of clips.

    The file has raw scores and scores scaled to [0, 1]; train a model on them with fusion.scores=FILE. `true`
    compares with the clips' own labels, which leaks those of evaluation clips. `predicted` needs an audio
    model. One that was trained on the train clips is too certain of them; `ajbench run tables/a8` scores
    them by models that were trained without them.

    \b
    Examples:
      ajbench entail --recipe mini-av --classifier DIR --out scores.parquet --page page
      ajbench entail --store STORE --comparison true --scorer minilm,bert=DIR --out scores.parquet
    """
    from ajbench.captions import published_pairs, score_file
    from ajbench.captions.llm_scorer import LLMScorer
    from ajbench.captions.score_log import ScoreLog
    from ajbench.core.device import available
    from ajbench.data.store import ClipStore
    from ajbench.fusion import store_scores
    from ajbench.reporting import entailment_page

    llm: dict[str, Any] = {
        "model": model,
        "url": url,
        "api": api,
        "concurrency": concurrency,
        "retries": retries,
    }
    llm |= {"timeout_s": timeout_s, "threads": threads}
    llm |= {
        "backend": backend,
        "prompt": prompt,
        "repeats": repeats,
        "shots": shots,
        "seed": settings.seed or 0,
        "max_fallback": max_fallback,
    }
    if out.is_dir():
        raise UsageError(f"--out {out}: a folder; name a file, such as {out / score_file.FILE}")
    need_new(out, "--out", settings.force)
    if page:
        for name in entailment_page.FILES:
            need_new(page / name, "--page", settings.force)
    if store:
        refuse_recipe(settings, "--store")
    else:
        prepared = one_fold.own_clips(settings.pipeline(settings.load())).prepare
        prepared.need()
        store = prepared.path
    inputs = store_scores.Inputs(ClipStore.open(store), captions, classifier, video_scores, top_k)
    comparisons = list(dict.fromkeys(name.strip() for name in comparison.split(",")))
    inputs.check(comparisons)
    of_text = [name for name in comparisons if name not in store_scores.WITHOUT_SCORER]
    named = _named(scorer) if of_text else {}
    if settings.dry_run:
        n = len(inputs.store)
        plan = [[name, one, n] for name in comparisons for one in (named if name in of_text else ("–",))]
        header = ["comparison", "scorer", "clips"]
        console.emit([dict(zip(header, line, strict=True)) for line in plan], table=(header, plan))
        return
    scorers = _scorers(named, available(settings.device), llm)
    asked = [one for one in scorers if isinstance(one, LLMScorer)]
    claim, log = (out.with_name(f".{out.name}.{kind}") for kind in ("lock", "answers.jsonl"))
    with lock(claim):
        need_new(out, "--out", settings.force)  # another process may have written it meanwhile
        for one in asked:
            one.log = ScoreLog(log, one.about)
        parts = [
            store_scores.entail(inputs, name, one)
            for name in comparisons
            for one in (scorers if name in of_text else [None])
        ]
        about = {"scorers": {one.name: one.about for one in scorers}, **inputs.about(comparisons)}
        score_file.write(out, parts, about)
        for done in (log, claim):  # whoever runs the command later makes its own
            done.unlink(missing_ok=True)
    for one in asked:
        for reason, n in one.reasons.most_common():
            console.say(f"{one.name}: {console.counted(n, 'pair')} without a number ({reason})")
    for note in store_scores.notes(parts):
        console.say(note)
    lines = entailment_page.summaries(parts)
    document: dict[str, Any] = {"path": out, "scores": lines}
    if page:
        found = entailment_page.agreements(parts, inputs.store.recordings)
        checks = [published_pairs.check(one) for one in scorers]
        document["correlations"] = entailment_page.lines_of(parts, found, checks)
        document["page"], _ = entailment_page.write(page, str(store), parts, found, checks)
        for check in checks:
            console.say(f"{check.scorer} and Alpaca's published scores: {check.correlation}")
        console.say(f"written: {document['page']}")
    console.emit(document, table=([*lines[0]], [[*line.values()] for line in lines]))


def _named(given: str) -> dict[str, Path | None]:
    """Return the scorers named by `minilm,bert=DIR`, each with its folder."""
    named: dict[str, Path | None] = {}
    for one in given.split(","):
        name, _, folder = one.strip().partition("=")
        if name in named:
            raise UsageError(f"--scorer {given}: {name} is named twice; score them into two files")
        named[name] = Path(folder).expanduser() if folder else None
    return named


def _scorers(named: dict[str, Path | None], device: str, llm: dict[str, Any]) -> "list[Scorer]":
    """Load scorers from their folders."""
    from ajbench.captions.entailment import load

    if not named:
        return []
    changed = [key for key, value in llm.items() if value is not None and key not in LLM_DEFAULTS]
    if "llm" not in named and changed:
        option = changed[0].replace("_", "-")
        raise UsageError(f"--{option}: has no effect without --scorer llm; omit it")
    return [load(name, folder, device, **(llm if name == "llm" else {})) for name, folder in named.items()]


@app.command()
@command(hide=("generator",))
def train_av(settings: Settings, tracker: Tracker = "csv") -> None:
    """Train one audio-visual classifier.

    Audio and video tokens are pooled by attention; the entailment score of a clip (`fusion.scorer`,
    `fusion.labels`) discounts its video. The audio model, its tokens and the scores are made first, unless
    they are finished. For several GPUs, run this command under `torchrun --nproc-per-node N --no-python` or
    `accelerate launch`.

    \b
    Examples:
      ajbench train-av --recipe mini-av
      ajbench train-av --recipe mini-av fusion.scorer=none --seed 1
    """
    from ajbench.pipeline import fusion_stages
    from ajbench.pipeline.stage import in_order, run_stages

    pipeline = settings.pipeline(settings.load(), tracker)
    fusion_stages.check(pipeline, [pipeline.recipe.fusion])
    stage = fusion_stages.cell_stage(pipeline, pipeline.recipe.fusion, settings.seed or 0)
    if settings.dry_run:
        show_plan(settings, in_order([stage]))
        return
    pipeline.prepare.need()
    earlier = [one for one in in_order([stage])[:-1] if one.name != "prepare"]
    run_stages(earlier, settings.device)
    run_stage(settings, stage)


@app.command()
@command(hide=("seed", "generator"))
def score_av(settings: Settings) -> None:
    """Evaluate the trained audio-visual classifiers.

    mAP and accuracy by audio, video and both, differences from naive fusion, and the share of clips that one
    modality alone gets right and both together get wrong.

    \b
    Examples:
      ajbench score-av --recipe mini-av
      ajbench score-av --recipe mini-av --json
    """
    from ajbench.pipeline import fusion_stages, fusion_table
    from ajbench.pipeline.stage import run_stages

    pipeline = settings.pipeline(settings.load())
    fusion_stages.check(pipeline)
    cells = (fusion_stages.grid_cells if settings.dry_run else fusion_stages.own_cells)(pipeline)
    stage = fusion_stages.score_stage(pipeline, cells)
    if settings.dry_run:
        show_plan(settings, [*stage.needs, stage])
        return
    ran = bool(run_stages([stage], settings.device, settings.force))
    done = fusion_table.publish(pipeline, cells, stage) | {"ran": ran}
    for note in (*done["table"]["notes"], f"results: {done['files'][0].parent}"):
        console.say(note)
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))
