"""Rules for the whole source: layout, one printer, safe calls, nothing heavy imported for help."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ajbench"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "diffusers", "pandas", "sklearn", "scipy", "matplotlib", "pyarrow", "numpy"}


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def test_the_package_holds_its_fourteen_packages_and_nothing_else():
    packages = """cli pipeline reporting evaluation fusion captions generation features classifiers metrics
    codec data training core"""
    found = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert found == {*packages.split(), "__init__.py", "__main__.py", "py.typed"}


def test_no_module_is_longer_than_350_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {str(path): lines for path, lines in lengths.items() if lines > 350} == {}


def test_no_two_modules_differ_by_a_suffix():
    stems = {}
    for name in {path.stem for path in MODULES}:
        stem = re.sub(r"(?<=...)(ations?|ings?|ers?|ies|ied|ions?|es|ed|s|e|y)$", "", name)
        stems.setdefault(stem, []).append(name)
    assert [names for names in stems.values() if len(names) > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_console_prints_and_nothing_unsafe_is_called(path):
    unsafe = {"pickle.load", "pickle.loads", "joblib.load", "torchaudio.load", "yaml.load", "eval", "exec"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not {name for name in imports(node) if name.split(".")[0] in {"click", "joblib"}}
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        where = f"{path.name}:{node.lineno}: {name}"
        assert name != "print" or path.name == "console.py", where
        assert name not in unsafe, where
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert keywords.get("weights_only") != "False", where
        assert keywords.get("allow_pickle") != "True" and keywords.get("shell") != "True", where
        assert name != "torch.load" or keywords.get("weights_only") == "True", where


IMPORTS = "import sys, ajbench, ajbench.core.recipe, ajbench.core.run_dir, ajbench.core.console"
COMPARE = "import sys, ajbench.cli.evaluate, ajbench.evaluation.compare, ajbench.evaluation.baselines"


def invoke(*lines):
    start = "import sys\nfrom typer.testing import CliRunner\nfrom ajbench.cli.app import app\n"
    run = "result = CliRunner().invoke(app, {!r})\nassert result.exit_code == 0, result.output\n"
    return start + "".join(run.format(line.split()) for line in lines)


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (IMPORTS, {*HEAVY, "rich"}),
        (COMPARE, {"torch"}),  # with cached features
        (invoke("--help", "synth --help"), {*HEAVY, "rich", "yaml", "jinja2"}),
        (invoke("show mini", "ls recipes", "ls features"), HEAVY),
        (invoke("run mini --dry-run"), {"torch", "sklearn", "scipy.stats", "matplotlib"}),
    ],
    ids=["import ajbench", "compare", "help", "show and ls", "dry run"],
)
def test_nothing_heavy_is_imported(code, heavy):
    found = run_python(f"{code}\nprint(sorted({heavy!r} & set(sys.modules)))\n")
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_public_names_are_there_after_importing_ajbench_alone():
    names = """metrics.ranking.average_precision metrics.ranking.summary metrics.distribution.frechet_distance
    metrics.distribution.inception_score metrics.distribution.kl_divergence read ClipStore.open audit compare
    codec.load classifiers.build classifiers.load features.load captions.entailment fusion.pool
    AudioJourneyPipeline.from_pretrained"""
    code = f"import ajbench\nfor name in {names.split()}: assert callable(eval('ajbench.' + name)), name"
    found = run_python(code)
    assert found.returncode == 0, found.stderr


def test_every_version_is_pinned_so_that_all_can_be_compared_with_known_vulnerabilities():
    lines = (PACKAGE.parent / "requirements.lock").read_text().splitlines()
    named = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert named and all(re.fullmatch(r"[\w.-]+==[\w.!+-]+( ;.*)?", line) for line in named)
