"""Fixtures of the corpus readers, which look at file names only."""

import pytest


@pytest.fixture
def touch(tmp_path):
    """touch(*names) -> tmp_path with these empty files."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make
