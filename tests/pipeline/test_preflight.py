import pytest

from ajbench.core import recipe, registry
from ajbench.core.errors import UsageError
from ajbench.pipeline import preflight


@pytest.mark.parametrize("key", ["evaluate.features", "synth.judge"])
@pytest.mark.parametrize("name", [name for name in registry.FEATURES if name != "reference"])
def test_extractors_without_classes_are_refused(key, name):
    chosen = recipe.load("mini", (f"{key}={name}",))
    if registry.FEATURES[name].classes:
        preflight.check_names(chosen)
    else:
        with pytest.raises(UsageError, match=rf"^{key}={name}: .*eval-gen --gen DIR --ref DIR"):
            preflight.check_names(chosen)
