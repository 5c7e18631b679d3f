"""A page to listen to the codec: originals, two versions of `tiny`, and Opus at the nearest bitrate.

python benchmarks/codec_listening.py ESC10 OUT [--codec tiny tiny@ff1b92258faaad59] [--clips 40]

OUT receives index.html and FLAC files: the first clips of each of ESC-10's categories.
"""

import argparse
from pathlib import Path

import jinja2
import numpy as np
import soundfile
from codec_quality import opus
from judge import CATEGORIES, clips

from ajbench import codec
from ajbench.core import console
from ajbench.core.files import atomic_write
from ajbench.data import audio

PAGE = jinja2.Template(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Listen to the codec</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; }
thead th { position: sticky; top: 0; background: Canvas; }
audio { width: 14rem; height: 2rem; }
</style>
<h1>Listen to the codec</h1>
<p>{{ rows | length }} clips of ESC-10, {{ seconds }} s each, at 16 kHz.</p>
<table>
<thead><tr><th>clip</th>{% for name in systems %}<th>{{ name }}</th>{% endfor %}</tr></thead>
{% for title, files in rows %}<tr><th scope="row">{{ title }}</th>
{% for name, file in files %}<td><audio controls preload="none" src="{{ file }}"
aria-label="{{ title }}, {{ name }}"></audio></td>
{% endfor %}</tr>
{% endfor %}</table>
</html>
""",
    autoescape=True,
)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--codec", nargs="+", default=["tiny", "tiny@ff1b92258faaad59"])
    parser.add_argument("--clips", type=int, default=40)
    options = parser.parse_args()
    each = -(-options.clips // len(CATEGORIES))
    every = clips(options.folder)
    chosen = [one for kind in range(len(CATEGORIES)) for one in [c for c in every if c[1] == kind][:each]]
    chosen = chosen[: options.clips]
    waves = np.stack([audio.fit(audio.read(file), audio.clip_samples(5.04)) for file, _ in chosen])
    systems = {"original": waves}
    for name in options.codec:
        network = codec.load(name)
        systems[name] = np.concatenate([network.decode(network.encode(wave[None])).numpy() for wave in waves])
    decoded, kbps = opus(waves)
    systems[f"opus {kbps:.1f} kbit/s"] = decoded
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row, (file, kind) in enumerate(chosen):
        files = [(name, f"{file.stem}-{number}.flac") for number, name in enumerate(systems)]
        for name, target in files:
            soundfile.write(options.out / target, systems[name][row], audio.SAMPLE_RATE)
        rows.append((f"{CATEGORIES[kind].replace('_', ' ')}, {file.stem}", files))
    page = PAGE.render(rows=rows, systems=list(systems), seconds=f"{waves.shape[1] / audio.SAMPLE_RATE:.0f}")
    atomic_write(options.out / "index.html", page.encode())
    console.emit({"page": str(options.out / "index.html"), "clips": len(chosen), "systems": list(systems)})


if __name__ == "__main__":
    main()
