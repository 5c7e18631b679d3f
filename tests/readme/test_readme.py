"""README and docs/: every command parses, every name in it is known, every link and path leads to a file."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from ajbench.cli.app import app
from ajbench.core import recipe
from ajbench.pipeline import catalogue

REPOSITORY = Path(__file__).resolve().parents[2]
README = REPOSITORY / "README.md"
PAGES = [README, *(REPOSITORY / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "results/README.md"))]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
COMMANDS = typer.main.get_command(app)
# Folders whose files the pages name by their path from the repository's root.
PATH = re.compile(
    r"(?<![\w/.-])((?:ajbench|benchmarks|docs|recipes|tests)/[\w./-]*\.(?:py|csv|md|yaml|sh))\b"
)
SHELL = ("", "bash", "sh", "shell", "console")


def blocks(page):
    """Return (language, text) of the fenced blocks of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page):
    """Return the words after `ajbench` of each command in the shell blocks of a page."""
    found = []
    for language, text in blocks(page):
        if language not in SHELL:
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            places = [i for i, word in enumerate(words) if Path(word).name == "ajbench"]
            if places:
                found.append(words[places[0] + 1 :])
    return found


def spans(page):
    """Return the command lines that a page names in its sentences."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`(ajbench [^`]+)`", prose)]


def parsed(words):
    """Return the parameters of a command line, without running it."""
    command = COMMANDS.commands[words[0]]
    return command.make_context(words[0], list(words[1:])).params


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A folder with the YAML files that README shows, as the working directory."""
    for language, text in blocks(README):
        if language == "yaml":
            name = text.splitlines()[0].removeprefix("# ").strip()
            (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def of_all_pages():
    """Return every command of every page once, except for those of extending.md, which define their names."""
    found = {tuple(words): None for page in PAGES if page.stem != "extending" for words in commands(page)}
    return [list(words) for words in found if words[0].isidentifier() or "-" in words[0]]


@pytest.mark.parametrize("words", of_all_pages(), ids=" ".join)
def test_a_command_of_a_page_parses_and_its_names_are_known(words, written):
    given = parsed(words)
    expression = given.get("name") or given.get("recipe")
    if expression and "overrides" in given and not {"$", "="} & set(expression):
        loaded = recipe.load(expression, given["overrides"] or (), given.get("base"))
        assert given.get("key", "n") in type(loaded.synth).model_fields
    for kind in ("features", "metrics"):
        names = {entry["name"] for entry in catalogue.listing(kind)} | {"all"}
        assert set((given.get(kind) or "all").split(",")) <= names


def test_the_pages_have_commands():
    assert len(commands(README)) > 10
    assert len(of_all_pages()) > 60


def test_an_unknown_option_or_recipe_key_is_noticed():
    with pytest.raises(Exception, match="--no-such"):
        parsed(["run", "mini", "--no-such"])
    with pytest.raises(Exception, match="no_such"):
        recipe.load("mini", ["mix.no_such=1"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_named_in_sentences_exist_with_their_options(page):
    for span in spans(page):
        words = shlex.split(span)[1:]
        if words[0].startswith("-"):
            continue
        known = {name for option in COMMANDS.commands[words[0]].params for name in option.opts}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known | {"--help"}, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_paths_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    lost = [link for link in links if not (page.parent / link).exists()]
    lost += [path for path in PATH.findall(text) if not (REPOSITORY / path).exists()]
    assert not lost


def headings(page):
    """Return the anchors of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    names = [
        re.sub(r"[^\w\s-]", "", found).strip().lower()
        for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    ]
    return {re.sub(r"[\s-]+", "-", name) for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_anchors_are_headings(page):
    links = re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [(page.parent / path if path else page, anchor) for path, anchor in links if "://" not in path]
    assert not [(path.name, anchor) for path, anchor in inside if anchor not in headings(path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_python_names_can_be_imported(page):
    text = page.read_text(encoding="utf-8")
    for dotted in sorted(set(re.findall(r"\bajbench(?:\.[A-Za-z_]\w*)+", text))):
        parts = dotted.split(".")
        module, rest = importlib.import_module(parts[0]), parts[1:]
        while rest:
            if not hasattr(module, rest[0]):
                importlib.import_module(f"{module.__name__}.{rest[0]}")
            module, rest = getattr(module, rest[0]), rest[1:]


def test_make_targets_of_the_pages_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = re.findall(r"`([^`]+)`", text) + [block for _, block in blocks(page)]
        named = {target for part in code for target in re.findall(r"^make ([\w-]+)", part, re.MULTILINE)}
        assert named <= targets, page.name


def test_the_citation_names_the_package_version():
    from ajbench import __version__

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == __version__
