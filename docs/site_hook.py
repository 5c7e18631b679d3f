"""Hook of MkDocs: writes the reference from the code.

A page has a line `<!-- generated: NAME -->`, which the text of the function in `WRITERS` replaces. In a
repository, where a page is read without the site, the sentence above that line says what to run.
"""

import importlib
import inspect
import json
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

import ajbench
from ajbench.cli.app import app
from ajbench.core import registry, weights
from ajbench.core.recipe import Recipe
from ajbench.core.section import LARGEST
from ajbench.evaluation.generation_metrics import METRICS

DOCS = Path(__file__).parent
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
NOTEBOOK = DOCS / "notebook.ipynb"
RESULTS = DOCS.parent / "results" / "README.md"  # outside of docs/, shown as the page reference/results.md
SECTIONS = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$\n((?:^(?: .*)?$\n?)+)", re.MULTILINE)
ITEM = re.compile(r"^([\w.*, ]+):\s+(.*)$", re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with its generated part; links to files outside of docs/ become their text."""
    folder = Path(page.file.src_uri).parent
    own = os.path.relpath("reference/results.md", folder)

    def inside(found: re.Match[str]) -> str:
        target = os.path.normpath(folder / found[2])
        if target == "../results/README.md":
            return f"[{found[1]}]({own}{found[3]})"
        return found[1] if target.startswith("..") else found[0]

    filled = MARK.sub(lambda found: WRITERS[found[1]](), markdown)
    return re.sub(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)([^)]*)\)", inside, filled)


def on_post_page(output: str, **_: Any) -> str:
    """Return a page as written, with what axe misses in the theme: a name of the search, no empty headers."""
    output = output.replace(
        'data-md-component="search" role="dialog"',
        'data-md-component="search" role="dialog" aria-label="Search"',
    )
    output = re.sub(r"<thead>\s*<tr[^>]*>\s*(?:<th[^>]*></th>\s*)+</tr>\s*</thead>", "", output)
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", output)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )


def commands() -> str:
    """Return every command with its help, examples and options."""
    group = typer.main.get_command(app)
    parts = []
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        text, _, examples = (command.help or "").partition("\b\nExamples:\n")
        context = command.context_class(command, info_name=f"ajbench {name}")
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [f"## {name}", escaped(text.strip()), f"```text\n{' '.join(usage.split())}\n```"]
        if examples:
            parts += ["Examples:", f"```sh\n{textwrap.dedent(examples).strip()}\n```"]
        records = [param.get_help_record(context) for param in command.params]
        parts.append(
            table(("option", ""), [(f"`{left}`", escaped(right)) for left, right in filter(None, records)])
        )
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Return text in which Markdown reads no HTML, link or emphasis outside of code."""
    outside = re.split(r"(`[^`]*`)", text)
    outside[::2] = [re.sub(r"([<*_\[])", r"\\\1", part) for part in outside[::2]]
    return "".join(outside)


def recipe_keys() -> str:
    """Return every key of every section of a recipe: values, default and description."""
    top = [(name, field) for name, field in Recipe.model_fields.items() if section_of(field) is None]
    parts = ["## At the top", keys_of(Recipe, top)]
    for name, field in Recipe.model_fields.items():
        if section := section_of(field):
            parts += sections(name, section)
    return "\n\n".join(parts)


def sections(name: str, section: type[BaseModel]) -> list[str]:
    """Return the parts of a section and of the sections inside it."""
    parts = [
        f"## {name}",
        escaped(inspect.getdoc(section) or ""),
        keys_of(section, section.model_fields.items()),
    ]
    for key, field in section.model_fields.items():
        if inner := section_of(field):
            parts += sections(f"{name}.{key}", inner)
    return parts


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model that a key holds, or holds a list of; None for plain values."""
    found = [field.annotation, *get_args(field.annotation)]
    return next((one for one in found if inspect.isclass(one) and issubclass(one, BaseModel)), None)


def keys_of(section: type[BaseModel], fields: Iterable[tuple[str, FieldInfo]]) -> str:
    """Return the table of some keys of a section."""
    schema = section.model_json_schema()
    rows = []
    for key, field in fields:
        values = values_of(schema["properties"][key], schema.get("$defs", {}))
        rows.append((f"`{key}`", values, default_of(field), escaped(field.description or "")))
    return table(("key", "values", "default", ""), rows)


def values_of(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """Return the values that a key takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(values_of(one, known) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "$ref" in schema:
        return "section"
    kind = schema.get("type", "any")
    if kind == "array":
        one = schema.get("items") or {}
        return f"list of {values_of(one, known)}" if one else "list"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in signs.items()
        if key in schema and schema[key] != LARGEST  # which no use comes near
    ]
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "`true`, `false`"}
    return " ".join(
        [names.get(kind, {"object": "mapping", "null": "`null`"}.get(kind, kind)), ", ".join(limits)]
    )


def default_of(field: FieldInfo) -> str:
    """Return the default of a key as YAML would have it; `required` where there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, tuple):
        value = [one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in value]
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    plain = isinstance(value, str) and value
    return f"`{value if plain else json.dumps(value, ensure_ascii=False)}`"


def python() -> str:
    """Return the public functions and classes with signatures and docstrings."""
    parts = []
    for name, module in ajbench._PUBLIC.items():
        parts += documented(f"ajbench.{name}", getattr(importlib.import_module(module), name))
    for package in ajbench._PACKAGES:
        module = importlib.import_module(f"ajbench.{package}")
        parts += [f"## ajbench.{package}", escaped(inspect.getdoc(module) or "")]
        for name, member in public(module):
            parts += documented(f"ajbench.{package}.{name}", member, level=3)
    return "\n\n".join(parts)


def public(module: Any) -> list[tuple[str, Any]]:
    """Return the public functions and classes of a package; of its public modules too, as `module.name`."""
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    found = []
    for name in names:
        member = getattr(module, name)
        if inspect.ismodule(member) and hasattr(module, "__all__"):
            found += [(f"{name}.{inner}", one) for inner, one in public(member)]
        elif callable(member) and (
            hasattr(module, "__all__") or getattr(member, "__module__", "") == module.__name__
        ):
            found.append((name, member))
    return found


def documented(name: str, member: Any, level: int = 2) -> list[str]:
    """Return heading, signature and docstring of a function or class, and of a class' public methods."""
    text = inspect.getdoc(member) if member.__doc__ else ""
    parts = [f"{'#' * level} {name}", f"```python\n{signature(name, member)}\n```", docstring(text or "")]
    if inspect.isclass(member):
        for inner, method in vars(member).items():
            function = method.__func__ if isinstance(method, classmethod | staticmethod) else method
            if not inner.startswith("_") and inspect.isfunction(function):
                parts += documented(f"{name}.{inner}", function, level + 1)
    return [part for part in parts if part]


def signature(name: str, member: Any) -> str:
    """Return a call in one line, or one parameter a line if that is too long."""
    try:
        found = inspect.signature(member)
    except ValueError:
        return name
    shown = [parameter(one) for name_, one in found.parameters.items() if name_ not in ("self", "cls")]
    back = found.return_annotation
    arrow = "" if back is inspect.Signature.empty else f" -> {typed(back)}"
    call = name.removeprefix("ajbench.")
    line = f"{call}({', '.join(shown)}){arrow}"
    return line if len(line) <= 100 else f"{call}(\n    " + ",\n    ".join(shown) + f",\n){arrow}"


def parameter(one: inspect.Parameter) -> str:
    """Return a parameter with its type and default."""
    text = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "") + one.name
    if one.annotation is not one.empty:
        text += f": {typed(one.annotation)}"
    return text if one.default is one.empty else f"{text} = {one.default!r}"


def typed(annotation: Any) -> str:
    """Return a type without the modules of its names."""
    text = (
        annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)
    )
    text = re.sub(r"numpy\.ndarray\[tuple\[.*?\], numpy\.dtype\[(?:\w+\.)*(\w+)\]\]", r"NDArray[\1]", text)
    if "_SupportsArray" in text:
        return "ArrayLike"
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])", "", text.strip("'"))


def docstring(text: str) -> str:
    """Return a docstring in Google style as Markdown: its sections as lists."""

    def listed(found: re.Match[str]) -> str:
        items = re.split(r"\n(?=\S)", textwrap.dedent(found[2]).strip())
        lines = []
        for item in items:
            one, named = " ".join(item.split()), ITEM.match(item)
            if named and found[1] not in ("Returns", "Yields"):
                one = f"`{named[1]}`: {escaped(' '.join(named[2].split()))}"
                lines.append(f"- {one}")
            else:
                lines.append(f"- {escaped(one)}")
        return f"\n**{found[1]}**\n\n" + "\n".join(lines) + "\n"

    before = SECTIONS.search(text)
    if not before:
        return escaped(text)
    return escaped(text[: before.start()]) + SECTIONS.sub(listed, text[before.start() :] + "\n")


def metrics() -> str:
    """Return the metrics of generated clips with range, direction and what each one needs."""
    rows = []
    for name, one in METRICS.items():
        low, high = (f"{end:g}".replace("inf", "∞") for end in one.limits)
        rows.append((f"`{name}`", escaped(one.meaning), f"{low} to {high}", one.better, ", ".join(one.needs)))
    return table(("name", "", "range", "better", "needs"), rows)


def weight_table() -> str:
    """Return the published weights, one line per name."""
    rows = []
    by_name: dict[str, list[weights.WeightFile]] = {}
    for file in weights.listed():
        by_name.setdefault(file.name, []).append(file)
    for name, files in by_name.items():
        sizes = [file.bytes for file in files]
        size = f"{sum(filter(None, sizes)) / 1e6:,.0f}" if None not in sizes else "–"
        pinned = sum(bool(file.sha256) for file in files)
        count = f"{pinned} of {len(files)}"
        source = re.sub(r"/resolve/.*|\?.*", "", files[0].url)
        rows.append((f"`{name}`", files[0].used_for, size, count, files[0].licence, f"<{source}>"))
    return table(("name", "used for", "MB", "files with a known hash", "licence", "published at"), rows)


def extractors() -> str:
    """Return the extractors with what they compute."""
    return table(
        ("name", ""), [(f"`{name}`", escaped(one.description)) for name, one in registry.FEATURES.items()]
    )


def results() -> str:
    """Return results/README.md without its heading, links to pages of docs/ as seen from reference/."""
    text = RESULTS.read_text(encoding="utf-8").partition("\n")[2]
    text = re.sub(r"\[([^\]]+)\]\((?!\.\./docs/|#|https?:)[^)]*\)", r"\1", text)  # to files of results/
    return text.replace("](../docs/", "](../")


def notebook() -> str:
    """Return docs/notebook.ipynb as Markdown: text, code and outputs."""
    parts = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", []):
            html = "".join(output["data"]["text/html"])
            # A blank line would end the block; tables have the style of the site instead of Jupyter's.
            html = re.sub(r"<style scoped>.*?</style>|\n\s*", "", html, flags=re.DOTALL)
            parts.append(re.sub(r"<table[^>]*>", "<table>", html))
    return "\n\n".join(parts)


WRITERS = {
    "notebook": notebook,
    "commands": commands,
    "recipe_keys": recipe_keys,
    "python": python,
    "metrics": metrics,
    "weights": weight_table,
    "extractors": extractors,
    "results": results,
}
