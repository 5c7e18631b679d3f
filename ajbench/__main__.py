"""`python -m ajbench`."""

from ajbench.cli.app import app

if __name__ == "__main__":
    app()
