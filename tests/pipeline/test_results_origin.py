import pytest

from ajbench.core.errors import UsageError
from ajbench.pipeline.results_origin import claim


def test_a_folder_of_results_belongs_to_one_recipe_and_one_corpus(tmp_path):
    out = tmp_path / "results" / "my"
    one, two, data, other = (tmp_path / name for name in ("1.yaml", "2.yaml", "data", "other"))
    for path in (one, two, data, other):
        path.touch()
    claim(out, one, data, keep=False)
    assert not out.exists()
    claim(out, one, data)
    claim(out, one, data)
    claim(out, None, data)  # the recipe made for the data, and later written to a file
    claim(out, one, data)
    with pytest.raises(UsageError, match=r"2\.yaml"):
        claim(out, two, data)
    with pytest.raises(UsageError, match=r"other"):
        claim(out, one, other)
    claim(out, one, data, data)
    with pytest.raises(UsageError, match=r"synthetic.*other"):
        claim(out, one, data, other)
    claim(out, one, data, data)
    one.rename(tmp_path / "moved.yaml")
    claim(out, tmp_path / "moved.yaml", data)
    with pytest.raises(UsageError, match=r"2\.yaml"):
        claim(out, two, data)
