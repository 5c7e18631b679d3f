"""Table A8 of a recipe: its files in the results folder."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ajbench.core.files import atomic_write
from ajbench.core.fusion_section import NAIVE
from ajbench.data.labels import load_scores
from ajbench.data.store import ClipStore
from ajbench.evaluation.audio_visual import line_name
from ajbench.fusion.av_clips import MODALITIES
from ajbench.pipeline import results_folder
from ajbench.pipeline.fusion_stages import Cell
from ajbench.pipeline.fusion_work import read_clip_scores, scores_name
from ajbench.pipeline.stage import Stage

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.reporting.fusion_page import Example


def publish(pipeline: "Pipeline", cells: Sequence[Cell], stage: Stage) -> dict[str, Any]:
    """Write Table A8 to `<results>/<recipe>/a8/` and add its rows to the rows of the results folder.

    Args:
        pipeline: the recipe and its places.
        cells: the models.
        stage: their finished evaluation.

    Returns:
        `files` (table_a8.csv, .md, .tex, index.html), `lines` (the measured ones of the CSV) and `table`
        (header, lines and notes).
    """
    from ajbench.reporting import formats, fusion_page, table_a8

    recipe = pipeline.recipe
    rows = pd.DataFrame(results_folder.add_rows(pipeline, stage))
    notes = results_folder.notes_of(stage)
    out = pipeline.results / "a8"
    out.mkdir(parents=True, exist_ok=True)
    lines, files = table_a8.write(rows, recipe, notes)
    for name, text in files.items():
        atomic_write(out / name, text)
    scored = [cell for cell in cells if cell.settings.scorer != NAIVE and cell.settings.labels == "predicted"]
    shown = (*scored, *cells)[0]
    model = table_a8.condition(line_name(shown.settings.scorer, shown.settings.labels))
    blocks = table_a8.blocks(table_a8.with_published(lines, recipe), recipe, notes)
    store = ClipStore.open(pipeline.prepare.path, verify=False)
    title = f"Table A8, {recipe.name}"
    page = fusion_page.render(out / "index.html", title, blocks, store, _examples(shown, store), model)
    header, cells_shown = formats.console_table(blocks[0])
    table = {"header": header, "lines": cells_shown, "notes": blocks[0].notes}
    return {"files": [*(out / name for name in files), page], "lines": lines, "table": table}


def _examples(cell: Cell, store: ClipStore) -> "list[Example]":
    from ajbench.reporting import fusion_page

    scores = {modality: load_scores(cell.stage.path / scores_name(modality)) for modality in MODALITIES}
    found = read_clip_scores(cell.stage.path)
    indices, values = found["indices"], np.where(found["scored"], found["scores"], np.nan)
    held_out = np.isin(indices, store.split_indices("eval"))
    clips = indices[held_out]
    return fusion_page.choose(scores, values[held_out], clips, store.has_video(clips))
