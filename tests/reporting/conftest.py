import pytest
import torch
from fakes import esc10_recipe, grid_predictions, write_result_rows, write_result_store

from ajbench.data import shards
from ajbench.data.labels import save_scores
from ajbench.data.manifest import Problem
from ajbench.reporting import report
from ajbench.reporting.report import ReportData


@pytest.fixture(scope="session")
def grid_results(tmp_path_factory):
    """A made-up run of a grid of classifiers: (recipe, predictions by cell, rows.csv)."""
    plan = esc10_recipe()
    cells = grid_predictions(plan)
    return plan, cells, write_result_rows(tmp_path_factory.mktemp("results") / "rows.csv", plan, cells)


@pytest.fixture(scope="session")
def rendered(grid_results, tmp_path_factory):
    """A report with everything in it: (data, folder)."""
    torch.set_num_threads(1)
    folder, (plan, cells, rows) = tmp_path_factory.mktemp("report"), grid_results
    scores = {}
    for i, (cell, s) in enumerate(cells.items()):
        scores[cell] = save_scores(
            folder / f"{i}.npz", s.scores, s.targets, s.clip_ids, s.labels, s.recordings
        )
    real = write_result_store(folder / "real", per_class=4)
    silent = Problem("5-9", "audio/<5>.ogg", None, "silent (peak 3.1e-05; at least 1e-04)")
    shards.write_quarantine(real, [silent])
    sets = {"img2img": write_result_store(folder / "img2img", "synthetic", blur=0.3, parents=True)}
    sets["noise"] = write_result_store(folder / "noise", "synthetic", blur=0.9)
    run = {"stage": "synth", "seconds": 660.0, "peak_memory_mb": 812.5, "device": "cpu", "git": "c0ffee"}
    run |= {"python": "3.11.7", "platform": "Linux", "threads": 2, "versions": {"torch": "2.11.0"}}
    data = ReportData(plan, rows, real, sets, scores, [run, run], ["unconditional: no KL <b>here</b>"])
    (folder / "out").mkdir()
    (folder / "out" / "audit.html").touch()  # of `ajbench audit`, which the page links to
    return data, report.render(data, folder / "out").parent
