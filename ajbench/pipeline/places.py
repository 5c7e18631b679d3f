"""The folders and files of a run: where a recipe is carried out, which is not part of it."""

from dataclasses import dataclass
from pathlib import Path

from ajbench.core.clip_sections import Data
from ajbench.core.ray_tasks import Engine
from ajbench.data.external_clips import ExternalSource


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        data: the corpus; None if it is rendered.
        work: stages have their folders in `<work>/<recipe>/`.
        results: rows, tables and report go to `<results>/<recipe>/`.
        generator: a trained generator to use instead of the recipe's own.
        tracker: where loss curves go besides metrics.csv.
        synthetic: clips made elsewhere.
        engine: what shares the work of `prepare`, `synth` and the parallel stages: processes here, or Ray.
    """

    data: Path | None = None
    work: Path = Path("work")
    results: Path = Path("results")
    generator: Path | None = None
    tracker: str = "csv"
    synthetic: ExternalSource | None = None
    engine: Engine = "local"

    def results_of(self, name: str) -> Path:
        """Return the results folder of a recipe, which is another one with clips from elsewhere."""
        return self.results / (f"{name}+{self.synthetic.name}" if self.synthetic else name)

    def pcm(self, data: Data) -> Path | None:
        """Return the folder of caches of decoded sound, if a recipe wants them."""
        return self.work / "pcm" if data.cache == "pcm" else None
