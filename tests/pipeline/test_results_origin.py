import pytest
from fakes import flip_in

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.pipeline.results_origin import MADE, SHIPPED, claim


def test_a_folder_of_results_belongs_to_one_recipe_and_one_corpus(tmp_path):
    out = tmp_path / "results" / "my"
    one, two, data, other = (tmp_path / name for name in ("1.yaml", "2.yaml", "data", "other"))
    for path in (one, two, data, other):
        path.touch()
    claim(out, one, data, keep=False)
    assert not out.exists()
    claim(out, one, data)
    claim(out, one, data)
    claim(out, MADE, data)  # and later written to a file
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


def test_a_shipped_recipe_and_another_of_its_name_do_not_share_a_folder(tmp_path):
    mine, made = tmp_path / "esc10.yaml", tmp_path / "made"
    mine.touch()
    claim(tmp_path / "shipped", SHIPPED, tmp_path)
    claim(tmp_path / "shipped", SHIPPED, tmp_path)
    claim(tmp_path / "mine", mine, tmp_path)
    claim(made, MADE, tmp_path)
    for folder, recipe in (("shipped", mine), ("mine", SHIPPED), ("shipped", MADE), ("made", SHIPPED)):
        with pytest.raises(UsageError, match=r"holds results of .*, not of"):
            claim(tmp_path / folder, recipe, tmp_path)
    for recipe in (mine, MADE):  # once written to a file, other files are of another recipe
        claim(made, recipe, tmp_path)
    other = tmp_path / "other.yaml"
    other.touch()
    with pytest.raises(UsageError, match=r"esc10\.yaml"):
        claim(made, other, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", None])
def test_a_damaged_note_is_not_taken_over(tmp_path, text):
    claim(tmp_path, SHIPPED, tmp_path)
    path = tmp_path / "origin.json"
    if text is None:
        flip_in(path, tmp_path.name)
    else:
        path.write_text(text)
    with pytest.raises(IntegrityError, match=r"origin\.json: damaged"):
        claim(tmp_path, MADE, tmp_path / "other")


def test_a_note_of_an_older_version_names_no_recipe(tmp_path):
    (tmp_path / "origin.json").write_text('{"recipe": null, "data": null, "synthetic": null}')
    claim(tmp_path, SHIPPED, None)


def test_a_run_of_rendered_clips_does_not_hide_whose_data_a_folder_holds(tmp_path):
    out, data, other = (tmp_path / name for name in ("out", "data", "other"))
    for path in (data, other):
        path.touch()
    claim(out, SHIPPED, data)
    claim(out, SHIPPED, None)
    claim(out, SHIPPED, data)
    with pytest.raises(UsageError, match="other"):
        claim(out, SHIPPED, other)
