"""The keys of a recipe before they are checked: YAML files, `extends`, variants, `key=value`."""

from pathlib import Path
from typing import Any

from ajbench.core import documents
from ajbench.core.errors import UsageError
from ajbench.core.section import overlay

_PACKAGE = Path(__file__).parents[1]
# A wheel has the recipes inside the package, a checkout next to it.
SHIPPED = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"
ANCESTORS = 20  # recipes that extend each other
MAPPINGS = (
    "data", "codec", "generator", "invert", "synth", "mix", "classifier", "fusion", "evaluate", "variants",
    "per_classifier",
)  # fmt: skip


def shipped() -> list[str]:
    """Names of the recipes that come with ajbench."""
    names = (path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("tables/"))


def there(path: Path) -> bool:
    """Return whether a path exists; one that the system cannot have, such as a very long one, does not."""
    try:
        return path.exists()
    except OSError:
        return False


def read(name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the keys of a recipe and of those that it extends.

    Args:
        name: of a shipped recipe, or the path of a YAML file.
        above: the files that extend it, directly or not.

    Raises:
        UsageError: it is unknown, not YAML, too large, extends itself, or a section is not keys and values.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name}.yaml"
    if above and path.resolve() in above:
        raise UsageError(f"recipe {path}: extends itself through {above[-1].name}; name another parent")
    if len(above) >= ANCESTORS:
        raise UsageError(f"recipe {path}: more than {ANCESTORS} recipes extend each other; merge some")
    try:
        tree = documents.read_yaml(path) or {}
    except FileNotFoundError:
        from ajbench.core.registry import suggest

        if name.endswith((".yaml", ".yml")):
            raise UsageError(
                f"{name[-200:]}: no such file; give the path of a recipe, or the name of one that "
                "`ajbench ls recipes` lists"
            ) from None
        raise UsageError(
            f"recipe {name[:80]!r} is unknown{suggest(name, shipped())}; shipped: {', '.join(shipped())}"
        ) from None
    except ValueError as error:
        raise UsageError(f"recipe {str(path)[-200:]!r}: not valid YAML ({error})") from None
    _need_mappings(tree, f"recipe {path}")
    parent = tree.pop("extends", None)
    tree.setdefault("name", path.stem)
    if parent is None:
        return tree
    sibling = path.parent / f"{parent}.yaml"
    base = read(str(sibling) if there(sibling) else str(parent), (*above, path.resolve()))
    # A variant replaces the parent's variant of the same name; the two are not merged.
    variants = {**base.get("variants", {}), **tree.get("variants", {})}
    return overlay(base, tree) | ({"variants": variants} if variants else {})


def with_variant(tree: dict[str, Any], name: str, variant: str | None) -> dict[str, Any]:
    """Apply one block of `variants`, by default that of the recipe's own `variant` (paper: none)."""
    blocks = tree.pop("variants", {})
    allowed = ", ".join(["paper", *blocks])
    for given in (variant, tree.get("variant")):
        if given is not None and not isinstance(given, str):
            raise UsageError(f"recipe {name}: variant={given!r:.80} is not a name; allowed: {allowed}")
    if variant is None:  # a recipe that was dumped has its own variant merged already
        variant = tree.get("variant", "paper")
        return overlay(tree, blocks.get(variant, {}))
    if variant == "paper":
        return tree
    if variant not in blocks:
        raise UsageError(f"recipe {name}: variant={variant} is unknown; allowed: {allowed}")
    return overlay(tree, blocks[variant])


def overridden(tree: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Apply an override, which also takes precedence over `per_classifier`."""
    tree = overlay(tree, change)
    _need_mappings(tree, "override")
    asked = change.get("classifier")
    if isinstance(asked, dict) and isinstance(tree.get("per_classifier"), dict):
        kept = {name: overlay(keys, asked) for name, keys in tree["per_classifier"].items()}
        tree["per_classifier"] = {name: keys | {"name": name} for name, keys in kept.items()}
    return tree


def parse_override(text: str) -> dict[str, Any]:
    """Return the tree of one `key=value`, such as {"mix": {"alpha": 0.3}}.

    Raises:
        UsageError: not of this form, or the value is not YAML.
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"override {text[:80]!r}: expected key=value, such as mix.alpha=0.3")
    try:
        tree: Any = documents.parse_yaml(value)
    except ValueError as error:
        raise UsageError(f"override {text[:80]!r}: the value is not valid YAML ({error})") from None
    names = key.split(".")
    if len(names) > documents.DEPTH:
        raise UsageError(f"override {text[:80]!r}: a key has at most {documents.DEPTH} parts")
    for name in reversed(names):
        tree = {name: tree}
    return dict(tree)


def _need_mappings(tree: Any, where: str) -> None:
    """Refuse a recipe, or a section of it, that is text, a list or the like."""
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise UsageError(f"{where}: expected keys and values, found {type(tree).__name__}")
    sections = {key: tree[key] for key in MAPPINGS if key in tree}
    for group in ("variants", "per_classifier"):
        inside = sections.get(group)
        if isinstance(inside, dict):
            sections |= {f"{group}.{name}": block for name, block in inside.items()}
    for key, value in sections.items():
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise UsageError(f"{where}: {key}: expected keys and values, found {type(value).__name__}")
