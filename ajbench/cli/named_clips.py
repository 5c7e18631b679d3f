"""Commands whose clips a recipe or an option names."""

from ajbench.cli.options import Settings
from ajbench.core.errors import UsageError


def refuse_recipe(settings: Settings, option: str) -> None:
    """Refuse a recipe, its data and its keys where an option names the clips.

    Raises:
        UsageError: one of them is given.
    """
    recipe, data = (["--recipe"] if settings.recipe else []), (["--data"] if settings.data else [])
    if given := [*recipe, *data, *settings.overrides]:
        raise UsageError(f"{given[0]}: has no effect with {option}; omit it")
