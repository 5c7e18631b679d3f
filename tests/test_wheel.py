"""The built wheel: holds every file that the package needs, and works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's content, as an installation has it, and nothing else of ajbench."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def ajbench(installed, cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "120"}
    command = [sys.executable, "-m", "ajbench", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def files(folder, under=""):
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{under}{path.relative_to(folder)}" for path in found}


def test_it_holds_package_recipes_and_published_tables(installed):
    expected = (
        files(REPOSITORY / "ajbench", "ajbench/")
        | files(REPOSITORY / "recipes", "ajbench/recipes/")
        | files(REPOSITORY / "results/published", "ajbench/published/")
    )
    assert files(installed / "ajbench", "ajbench/") == expected


def test_it_finds_recipes_and_published_tables_from_another_folder(installed, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", "import ajbench; print(ajbench.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()).is_relative_to(installed)
    listed = ajbench(installed, tmp_path, "ls", "recipes")
    assert {path.stem for path in (REPOSITORY / "recipes").glob("*.yaml")} <= set(listed.stdout.split())
    planned = ajbench(installed, tmp_path, "run", "mini", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "stages to do" in planned.stdout + planned.stderr


@pytest.mark.slow
def test_its_demo_runs_from_another_folder(installed, tmp_path):
    done = ajbench(installed, tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results/mini"
    assert (results / "report/index.html").exists()
    # The published rows come from the wheel.
    assert "published" in (results / "table_a11.csv").read_text()
