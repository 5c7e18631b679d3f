"""The script of docs/slurm.md, with an sbatch that runs its jobs at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ajbench.core import recipe
from ajbench.core.rows import read_rows

from .test_readme import REPOSITORY, blocks

SBATCH = """#!{python}
import os, subprocess, sys
options = sys.argv[1:]
value = lambda name: options[options.index(name) + 1] if name in options else None
first, last = map(int, (value("--array") or "1-1").split("-"))
with open({log!r}, "a") as log:
    log.write(f"{{value('--job-name')}} {{last}} {{value('--dependency')}}\\n")
for task in range(first, last + 1):
    given = os.environ | {{"SLURM_ARRAY_TASK_ID": str(task)}}
    subprocess.run(["bash", "-c", value("--wrap")], check=True, env=given, stdout=sys.stderr)
print(len(open({log!r}).readlines()))
"""
KEYS = [
    *("data.n_clips=40", "mix.real=all", "synth.n=8", "evaluate.doses=[8]", "evaluate.seeds=[0]"),
    *("evaluate.controls=[]", "evaluate.synthetic_only=false", "evaluate.pools=[]", "evaluate.probes={}"),
    *("generator.train_steps=2", "generator.warmup_steps=1", "invert.train_steps=2"),
    *("synth.sampler_steps=2", "classifier.train_steps=4", "classifier.warmup_steps=1"),
    "evaluate.primary=null",
]


@pytest.mark.slow
def test_the_jobs_make_the_table(tmp_path):
    (script,) = (text for language, text in blocks(REPOSITORY / "docs" / "slurm.md") if language == "slurm")
    (tmp_path / "submit.sh").write_text(script)
    log = tmp_path / "jobs"
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH.format(python=sys.executable, log=str(log)))
    sbatch.chmod(0o755)
    path = f"{sbatch.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = os.environ | {"PATH": path, "RECIPE": "mini", "GPUS": "1"}
    given["PLACES"] = f"--work {tmp_path / 'work'} --results {tmp_path / 'results'}"
    cells = 2 * len(recipe.load("mini").evaluate.models)
    subprocess.run(["bash", "submit.sh", *KEYS], cwd=tmp_path, env=given, check=True, timeout=1500)
    assert log.read_text().splitlines() == ["clips 1 None", f"cells {cells} afterok:1", "table 1 afterany:2"]
    rows = read_rows(tmp_path / "results" / "mini" / "rows.csv")
    assert {"mini", "+8G"} <= set(rows.loc[rows["table"] == "A11", "column"])
    assert len(list((tmp_path / "work" / "mini").glob("train-cls-*/DONE"))) >= cells
