"""What a run used and what a point cost."""

import pandas as pd
import pytest

from ajbench.reporting import cost
from ajbench.reporting.verdict import Answer

LINE = "taltrans-small/-/none"


def run(stage, seconds, finished="2026-01-01T00:10:00Z", **more):
    known = {"started": "2026-01-01T00:00:00Z", "finished": finished, "device": "cpu"}
    return {"stage": stage, "seconds": seconds, **known, **more}


def test_sums_and_maxima_by_kind_of_stage():
    runs = [
        run("synth", 60.0, cpu_seconds=100.0, peak_memory_mb=500.0),
        run("train-cls", 30.0, cpu_seconds=29.0, peak_memory_mb=900.0, disk_mb=2.0),
        run("train-cls", 50.0, cpu_seconds=48.0, peak_memory_mb=800.0, disk_mb=3.0) | {"device": "cuda"},
    ]
    synth, training = cost.stage_lines(runs)
    assert (synth["stage"], synth["runs"], synth["cpu_seconds"], synth["disk_mb"]) == (
        "synth",
        1,
        100.0,
        None,
    )
    assert (training["runs"], training["seconds"], training["cpu_seconds"]) == (2, 80.0, 77.0)
    assert (training["memory_mb"], training["disk_mb"]) == (900.0, 5.0)
    assert training["devices"] == "cpu, cuda" and training["gpu_seconds"] is None


@pytest.mark.parametrize(
    ("second", "joules"), [("2026-01-01T00:10:00Z", 3600.0), ("2026-01-01T01:00:00Z", 7200.0)]
)
def test_energy_of_runs_at_the_same_time_counts_once(second, joules):
    """Two runs of ten minutes, at 6 W: 3,600 J together, 7,200 J one after the other."""
    runs = [run("train-cls", 600.0, energy_j=3600.0), run("train-cls", 600.0, second, energy_j=3600.0)]
    assert cost.stage_lines(runs)[0]["energy_wh"] == pytest.approx(joules / 3600)


def test_of_a_resumed_run_only_the_last_session_is_known_to_be_at_the_same_time():
    """Of the first run's 20 minutes, ten were before `started`, perhaps days before."""
    runs = [run("synth", 1200.0, energy_j=7200.0), run("synth", 600.0, energy_j=3600.0)]
    assert cost.stage_lines(runs)[0]["energy_wh"] == pytest.approx(5400 / 3600)


def answer(delta, low, column="+320G"):
    return Answer(LINE, column, delta, low, 2 * delta - low, 3, 0, 1, 9.0, 0.0, 400)


def rows(column="+320G"):
    trained = {"table": "A11", "row": LINE, "metric": "map", "value": 0.5}
    return pd.DataFrame([trained | {"column": name, "seconds": 120.0} for name in (column, column, "esc10")])


RUNS = [run("prepare", 999.0), run("train-gen", 600.0), run("synth", 400.0), run("eval-cls", 60.0)]


def test_a_gain_has_a_price():
    (text,) = cost.sentences(RUNS, rows(), [answer(4.0, 1.0)])
    # (600 + 400) + 2 · 120 + 60 = 1,300 s for 4 points.
    assert "+4.0 points of mAP for 22 min (generation 17 min, training 4 min, evaluation 60 s)" in text
    assert text.endswith(", 5 min a point")


def test_a_doubtful_gain_is_called_so_and_a_loss_has_no_price():
    (doubtful,) = cost.sentences(RUNS, rows(), [answer(4.0, -1.0)])
    assert doubtful.endswith("if it is a gain at all")
    (loss,) = cost.sentences(RUNS, rows(), [answer(-4.0, -9.0)])
    assert "a point" not in loss and "−4.0 points" in loss


def test_clips_of_another_generator_have_no_known_price():
    assert cost.sentences(RUNS, rows("+320X"), [answer(4.0, 1.0, "+320X")]) == []
