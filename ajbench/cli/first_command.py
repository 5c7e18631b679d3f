"""The command that makes what another one lacks, as it can be typed."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core.errors import MissingError, UnfinishedError

if TYPE_CHECKING:
    from ajbench.cli.options import Settings

STAGES = ("prepare", "train-gen", "invert", "synth", "augment")  # each has a command that makes it alone
BY_RUN = ("train-cls", "tune", "import", "audit", "eval-cls", "eval-gen")
SEEDED = ("run", "export", "audit", "eval-gen", "report", "sweep")  # whose --seed is that of all stages
OF_ANY_FOLD = ("run", "audit", "sweep")


def told(error: UnfinishedError, name: str, settings: "Settings", own: Mapping[str, Any]) -> MissingError:
    """Return the error with the command that makes the missing stage.

    Args:
        error: as a stage raised it.
        name: of the command that failed.
        settings: its common options.
        own: its own options.
    """
    whole = name in ("report", "eval-cls") or error.stage in BY_RUN
    words = ["ajbench", "run" if whole else error.stage]
    words += _recipe(whole, settings, own) + _places(whole, settings)
    if whole:
        words += _external(own)
        words += _last_keys(error.home, bool(own.get("synthetic"))) if _is_own(settings, own) else []
    elif error.stage == "synth" and error.what:
        words += ["--probe", error.what]
    if settings.seed is not None and name in SEEDED:
        words += [f"{stage}.seed={settings.seed}" for stage in ("generator", "invert", "synth")]
    words += settings.overrides
    if not whole and name in OF_ANY_FOLD and error.fold is not None:
        words.append(f"data.eval_fold={error.fold}")
    return MissingError(f"{error.problem}; first run `{shlex.join(words)}`")


def _recipe(whole: bool, settings: "Settings", own: Mapping[str, Any]) -> list[str]:
    recipe = own.get("base") or own.get("name") or settings.recipe
    if recipe is None:
        return [] if settings.data or not whole else ["mini"]
    return [recipe] if whole else ["--recipe", recipe]


def _is_own(settings: "Settings", own: Mapping[str, Any]) -> bool:
    return settings.data is not None and not _recipe(False, settings, own)


def _places(whole: bool, settings: "Settings") -> list[str]:
    """Return the folders that are not the usual ones."""
    given = {"--data": settings.data, "--generator": settings.generator}
    given |= {"--work": settings.work} if settings.work != Path("work") else {}
    given |= {"--results": settings.results} if whole and settings.results != Path("results") else {}
    return [word for option, path in given.items() if path for word in (option, str(path))]


def _external(own: Mapping[str, Any]) -> list[str]:
    options = {"--synthetic": own.get("synthetic"), "--synthetic-labels": own.get("synthetic_labels")}
    words = [word for option, path in options.items() if path for word in (option, str(path))]
    return [*words, *(["--allow-leaks"] if own.get("allow_leaks") else [])]


def _last_keys(home: Path, external: bool) -> list[str]:
    """Return the KEY=VALUE of the last run of own clips, which other commands take over."""
    from ajbench.pipeline import kept_plans

    return kept_plans.keys_of(home / kept_plans.LAST[external])
