"""The site of docs/: it builds without a warning and loads only its own files; its reference is complete."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from browser import VIEWS, violations, watched

import ajbench
from ajbench.cli.app import app
from ajbench.core import registry, weights
from ajbench.core.recipe import Recipe
from ajbench.evaluation.generation_metrics import METRICS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
# What a page loads when it opens: links that a reader follows are not among it.
LOADED = re.compile(r"""<(?:script|img|iframe)[^>]+src="?([^"\s>]+)|<link[^>]+href="?([^"\s>]+)""")


@pytest.fixture(scope="module")
def hook():
    """The module docs/site_hook.py."""
    spec = importlib.util.spec_from_file_location("site_hook", DOCS / "site_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(text):
    """Return the first cell of every row of the tables in a text, as its code."""
    return [name for name in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)]


def test_every_command_is_described_with_its_options(hook):
    text = hook.commands()
    group = typer.main.get_command(app)
    parts = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(parts) == set(group.commands)
    for name, command in group.commands.items():
        shown = {
            option for param in command.params for option in param.opts if not getattr(param, "hidden", False)
        }
        assert all(option in parts[name] for option in shown if option.startswith("--")), name


def test_every_recipe_key_is_listed(hook):
    text = hook.recipe_keys()
    for name, field in Recipe.model_fields.items():
        section = hook.section_of(field)
        part = re.search(
            rf"^## {'At the top' if section is None else name}\n(.*?)(?=^## |\Z)", text, re.M | re.S
        )
        assert set([name] if section is None else section.model_fields) <= set(rows(part[1]))


def test_values_and_defaults_of_keys(hook):
    text = hook.recipe_keys()
    assert "| `real_through_codec` | `true`, `false` | `false` |" in text
    assert "| `preset` | `tiny`, `small`, `full` | `tiny` |" in text
    assert "| `shots` | integer ≥ 1 | required |" in text


def test_public_python_names_have_a_signature_and_sections(hook):
    text = hook.python()
    assert all(f"## ajbench.{name}\n" in text for name in ajbench.__all__ if name != "__version__")
    assert "- `gen`:" in text and "**Raises**" in text


def test_metrics_weights_and_extractors_are_complete(hook):
    assert rows(hook.metrics()) == list(METRICS)
    assert set(rows(hook.weight_table())) == {file.name for file in weights.listed()}
    assert rows(hook.extractors()) == list(registry.FEATURES)


def test_the_metrics_page_defines_every_metric():
    text = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    defined = re.findall(r"`(\w+)`", text.partition("### Definitions")[2].partition("## Classifiers")[0])
    assert set(METRICS) <= set(defined)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site, built without network: (folder, messages)."""
    pytest.importorskip("material", reason="the site needs mkdocs-material: pip install 'ajbench[docs]'")
    folder = tmp_path_factory.mktemp("built") / "site"
    # A proxy that does not exist: a build that asks the network fails.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # as the Makefile has it: a note of the theme, not about this site
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    made = subprocess.run(
        command, cwd=REPOSITORY, env=os.environ | offline | quiet, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder, made.stderr


def test_tables_have_no_empty_headers_and_the_search_has_a_name(hook):
    table = "<thead>\n<tr>\n{}</tr>\n</thead>\n<tbody></tbody>"
    named = table.format('<th class="a"></th>\n<th>n</th>\n')
    changed = hook.on_post_page(f'{named}<div data-md-component="search" role="dialog">')
    assert changed.startswith(table.format('<td class="a"></td>\n<th>n</th>\n'))
    assert changed.endswith('role="dialog" aria-label="Search">')
    assert hook.on_post_page(table.format("<th></th>\n<th></th>\n")).split() == ["<tbody></tbody>"]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "colours"), VIEWS)
def test_pages_of_the_site_open_from_disk_without_a_fault(built, chromium, width, colours):
    tab, faults = watched(chromium, width, colours)
    checked, _ = watched(chromium, width, colours)  # axe reads style sheets, which a page from disk may not
    for page in sorted(built[0].rglob("*.html")):
        if page.name != "404.html":  # its links start at the root of a server
            tab.goto(page.as_uri())
            assert tab.locator("h1").count() == 1, page
            assert faults == [], page
            checked.goto(page.as_uri())
            assert violations(checked) == [], page
    tab.close()
    checked.close()


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_only_its_own_files(built):
    site, messages = built
    assert "WARNING" not in messages
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # and the page of a missing address
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = [one or other for one, other in LOADED.findall(text)]
        assert loaded
        assert not [address for address in loaded if "//" in address], page.name
        assert "<!-- generated" not in text, page.name
        assert any(address.endswith("scripts/iframe-worker.js") for address in loaded)  # search from disk
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"own-data.html", "reference/cli.html"} <= found
    assert not list(site.rglob("*.py"))
