"""The table that `ajbench.compare` returns: a DataFrame that shows what a reader needs of it."""

import html
from collections.abc import Callable
from typing import Any

import pandas as pd

from ajbench.evaluation.generation_metrics import METRICS

ARROWS = {"lower": "↓", "higher": "↑"}
ABOUT = ("set", "reference", "features", "protocol")  # equal in all rows


class ComparisonTable(pd.DataFrame):
    """Metrics of two sets of clips, one row each; parts of it are ordinary DataFrames.

    Printed, and in a notebook, it shows values with three digits, intervals and n, what was compared, and the
    notes of `attrs["notes"]`. All columns are there to compute with.
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        shown = self._shown()
        if shown is None:
            return str(super().__repr__())
        return "\n".join([self._sentence(), shown.to_string(index=False), *self._notes()])

    def _repr_html_(self) -> str:
        shown = self._shown()
        if shown is None:
            return str(super()._repr_html_())  # type: ignore[misc]
        # pandas escapes the cells.
        table = shown.to_html(index=False, border=0)
        caption = f"<caption>{html.escape(self._sentence())}</caption><thead>"
        notes = "".join(f"<p><small>{html.escape(note)}</small></p>" for note in self._notes())
        return f"<div>{table.replace('<thead>', caption, 1)}{notes}</div>"

    def _shown(self) -> pd.DataFrame | None:
        """Return the table for reading; None if it has no rows, or not the columns any more."""
        if self.empty or not {"metric", "of", "value", "ci_low", "ci_high", "n", "n_reference"} <= {*self}:
            return None
        lines = []
        for row in self.to_dict("records"):
            line: dict[str, Any] = {"metric": f"{row['metric']} {ARROWS[METRICS[row['metric']].better]}"}
            line["of"] = row["of"]
            line["value"] = _digits(row["value"])
            known = row["ci_low"] == row["ci_low"]
            line["95 % interval"] = f"[{_digits(row['ci_low'])}, {_digits(row['ci_high'])}]" if known else "–"
            lines.append(line | {"n": row["n"], "n reference": row["n_reference"]})
        shown = pd.DataFrame(lines)
        return shown if shown["of"].any() else shown.drop(columns="of")

    def _notes(self) -> list[str]:
        return [f"{self.iloc[0].get('features', '?')}: {note}." for note in self.attrs.get("notes", ())]

    def _sentence(self) -> str:
        first = self.iloc[0]
        gen, reference, features, protocol = (first.get(name, "?") for name in ABOUT)
        return f"{gen} against {reference}: features {features}, protocol {protocol}"


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
