"""`python -m ajbench`."""

from ajbench.cli import app

if __name__ == "__main__":
    app()
