import pytest

from ajbench.core.errors import UsageError
from ajbench.evaluation.baselines import CODEC, HALVES, PINK, SILENCE
from ajbench.reporting import comparison_figures

VALUES = {"gen": 0.0, HALVES: 3.0, CODEC: 4.0, "gen, 12 clips": 5.0, PINK: 30.0, SILENCE: 0.0}


def lines_of(metric, features):
    """Rows of one metric: the whole set of 24 clips, then baselines and as many generated clips."""
    for row, value in VALUES.items():
        bounds, n = {"value": value, "ci_low": value - 1, "ci_high": value + 1}, 24 if row == "gen" else 12
        yield {"row": row, "metric": metric, "features": features, "n": n, "n_reference": n} | bounds


def test_baselines_of_one_n_are_drawn_for_each_extractor():
    rows = [line for of in ("fd mn04", "fad vggish", "kl mn04") for line in lines_of(*of.split())]
    drawn = comparison_figures.baseline_figure(rows)
    assert drawn.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in drawn
    for head in ("FD (mn04)", "FAD (vggish)"):
        assert f"{head} of 12 clips to 12 real ones" in drawn
    for row in VALUES.keys() - {"gen"}:
        assert drawn.count(f">{row}<") == 2
    assert ">gen<" not in drawn and "KL" not in drawn
    with pytest.raises(UsageError, match="--ladder-figure"):
        comparison_figures.baseline_figure([line for line in rows if line["metric"] == "kl"])


@pytest.mark.parametrize(("kind", "begin"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_curves_are_drawn_the_same_each_time(kind, begin):
    curve = [{"n": n, "fd": 8 / n, "low": 4 / n, "high": 12 / n, "fit": 8 / n} for n in (4, 8)]
    curve += [{"n": 16, "fd": 0.5, "low": None, "high": None, "fit": 0.5}]
    curve += [{"n": "inf", "fd": 0.1, "low": 0, "high": 0.2, "fit": 0.1}]
    rows = [{"features": name} | line for name in ("mn04", "clap") for line in curve]
    drawn = comparison_figures.curve_figure(rows, kind)
    assert drawn.startswith(begin) and drawn == comparison_figures.curve_figure(rows, kind)
    if kind == "svg":
        text = drawn.decode()
        assert "FD, mn04" in text and "FD, clap" in text and "FD∞ = 0.1" in text
