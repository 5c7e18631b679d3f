"""What holds for the source as a whole: import order, one printer, a quick command line, safe calls."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ajbench"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "diffusers", "pandas", "sklearn", "scipy", "matplotlib", "pyarrow", "numpy"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_order_of_imports_is_kept():
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    found = subprocess.run(
        [command, "--no-cache"], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_console_prints_and_nothing_unsafe_is_called(path):
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno}: {name}"
        assert name != "print" or path.name == "console.py", where
        assert name not in {
            "pickle.load",
            "pickle.loads",
            "joblib.load",
            "torchaudio.load",
            "eval",
            "exec",
        }, where
        assert name != "yaml.load", where
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert keywords.get("weights_only") != "False", where
        assert keywords.get("allow_pickle") != "True", where
        assert keywords.get("shell") != "True", where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", where
    assert not {name for name in imports(path) if name.split(".")[0] in {"click", "joblib"}}


@pytest.mark.parametrize(
    "command", [["--help"], ["synth", "--help"], ["show", "mini"], ["ls", "recipes"], ["ls", "features"]]
)
def test_looking_imports_nothing_heavy(command):
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from ajbench.cli.app import app\n"
        f"result = CliRunner().invoke(app, {command!r})\n"
        "assert result.exit_code == 0, result.output\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_cached_features_are_compared_without_torch():
    code = (
        "import sys, ajbench.cli.evaluate, ajbench.evaluation.compare, ajbench.evaluation.baselines\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "False", found.stdout + found.stderr


def test_importing_ajbench_imports_nothing_heavy():
    code = (
        f"import sys, ajbench, ajbench.core.recipe, ajbench.core.run_dir; print({HEAVY!r} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr


def test_public_names_are_there_after_importing_ajbench_alone():
    names = """metrics.ranking.average_precision metrics.ranking.summary metrics.distribution.frechet_distance
    metrics.distribution.inception_score metrics.distribution.kl_divergence read ClipStore.open audit
    codec.load classifiers.build classifiers.load features.load captions.entailment fusion.pool
    AudioJourneyPipeline.from_pretrained"""
    code = f"import ajbench\nfor name in {names.split()}: assert callable(eval('ajbench.' + name)), name"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
