"""The baselines of `eval-gen --ladder` on ESC-10: FD, IS and KL of mn04 for sounds of known quality.

AJBENCH_WEIGHTS=DIR python benchmarks/ladder_esc10.py [ESC10] [--work DIR] [--out FILE.csv]

ESC10 is a folder in ESC-50's layout (default: ../shared/data/esc10); DIR has mn04's weights. In place of
generated clips the 160 recordings of folds 1 and 2 are compared with the 160 of folds 3 and 4: what a perfect
generator would reach. Clips are paired within their class, so KL compares two clips of one class.
"""

import argparse
import csv
import tempfile
from pathlib import Path

from recorded import record

from ajbench import codec
from ajbench.core import console
from ajbench.data.clip_set import open_set
from ajbench.evaluation import baselines, protocols
from ajbench.evaluation.compare import choose, measure
from ajbench.evaluation.set_pair import SetPair
from ajbench.features.extractor import LazyExtractor

FOLDS = {"gen": ("1", "2"), "ref": ("3", "4")}
SHOWN = ["row", "metric", "value", "ci_low", "ci_high", "n", "n_reference"]


def folders(esc10: Path, home: Path) -> None:
    """Link the recordings of both pairs of folds into two folders, with matching names within a class."""
    with (esc10 / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        lines = sorted(csv.DictReader(file), key=lambda line: line["filename"])
    for name, folds in FOLDS.items():
        (home / name).mkdir()
        count: dict[str, int] = {}
        for line in lines:
            if line["fold"] in folds and line["esc10"] == "True":
                k = count[line["category"]] = count.get(line["category"], 0) + 1
                sound = next((esc10 / "audio").glob(Path(line["filename"]).stem + ".*")).resolve()
                (home / name / f"{line['category']}-{k:02d}{sound.suffix}").symlink_to(sound)


def main() -> None:
    """Evaluate both sets and the baselines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", type=Path, nargs="?", default=Path("../shared/data/esc10"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folders(options.esc10, home)
        how = LazyExtractor("mn04"), protocols.find("ajbench"), (options.work or home) / "features"
        pair = SetPair(open_set(home / "gen"), open_set(home / "ref"), *how)
        found = baselines.add_baselines(measure(pair, choose(pair)), pair, codec.load("tiny"))
    for note in found.notes:
        console.say(note)
    about = [found.rows[0][key] for key in ("features", "weights", "protocol")]
    header = [*SHOWN, "note", "features", "weights", "protocol"]
    rounded = (
        [f"{line[key]:.4g}" if isinstance(line[key], float) else line[key] for key in SHOWN]
        for line in found.rows
    )
    rows = [[*cells, line["note"], *about] for cells, line in zip(rounded, found.rows, strict=True)]
    record(header, rows, len(SHOWN), options.out)


if __name__ == "__main__":
    main()
