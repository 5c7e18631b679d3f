import pytest
from fakes import esc10_recipe, grid_predictions, write_result_rows


@pytest.fixture(scope="session")
def grid_results(tmp_path_factory):
    """A made-up run of a grid of classifiers: (recipe, predictions by cell, rows.csv)."""
    plan = esc10_recipe()
    cells = grid_predictions(plan)
    return plan, cells, write_result_rows(tmp_path_factory.mktemp("results") / "rows.csv", plan, cells)
