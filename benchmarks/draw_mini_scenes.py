"""Draw docs/mini_scenes.png: two frames of two videos of every class of `mini`.

Run from the repository root: `python benchmarks/draw_mini_scenes.py [OUT.png]`.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ajbench.data import video
from ajbench.data.corpora import mini_video

TIMES_S = (0.5, 1.5)
ACROSS = 4  # classes


def main(out: Path) -> None:
    """Render and draw everything into the PNG `out`."""
    scenes = [
        np.concatenate(
            [
                np.concatenate(video.frames(mini_video.render(path), TIMES_S), axis=1)
                for path in (mini_video.video_path(0, take + number, name, 2.0) for take in (0, 16))
            ],
            axis=1,
        )
        for number, name in enumerate(mini_video.NAMES)
    ]
    lines = [np.concatenate(scenes[k : k + ACROSS], axis=1) for k in range(0, len(scenes), ACROSS)]
    Image.fromarray(np.concatenate(lines)).quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs" / "mini_scenes.png")
