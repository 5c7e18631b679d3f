"""Fixtures of the corpus readers, which look at file names only."""

import pytest


@pytest.fixture
def touch(tmp_path):
    """touch(*names, tables={}) -> tmp_path with these empty files, and with tables of these lines, if any."""

    def make(*names, tables=None):
        written = {name: lines for name, lines in (tables or {}).items() if lines is not None}
        for path in (tmp_path / name for name in (*names, *written)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, lines in written.items():
            (tmp_path / name).write_text("\n".join([*lines, ""]))
        return tmp_path

    return make
