# Needs only Python 3.11 to 3.13 and a package registry.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.ajbench-installed
export UV_PYTHON_DOWNLOADS := never
# Otherwise a process without write access compiles 2,000 modules each time, which takes longer than most commands.
export UV_COMPILE_BYTECODE := 1

# Without mkdocs' notes about its next version.
export NO_MKDOCS_2_WARNING := 1

.PHONY: setup demo test test-slow test-gpu lint format tables report docs notebook vulnerabilities clean

setup: $(STAMP)

# Uses the machine's uv, else installs one into a small environment.
$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then \
	  [ -x .uv/bin/uv ] || { $(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv; }; \
	  uv=.uv/bin/uv; \
	fi; \
	[ -x $(BIN)/python ] || "$$uv" venv --python "$(PYTHON)" .venv; \
	"$$uv" pip install --python $(BIN)/python -r requirements.lock; \
	"$$uv" pip install --python $(BIN)/python --no-deps --editable .; \
	touch $@

demo: setup
	$(BIN)/ajbench demo

# Every process runs whole files, in the order of tests/conftest.py, so that fixtures of a file are made once;
# the cores set the number of processes.
test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not gpu"

# Skipped without a CUDA device; the test of two processes needs two.
test-gpu: setup
	$(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the tables of every results/<recipe>/rows.csv again.
tables: setup
	@set -e; for rows in results/*/rows.csv; do \
	  grep -qs ",A11," "$$rows" || continue; \
	  folder=$$(dirname "$$rows"); name=$$(basename "$$folder"); \
	  if [ -e "$$folder/recipe.yaml" ]; then name=$$folder/recipe.yaml; fi; \
	  $(BIN)/ajbench tables --recipe "$$name"; \
	done

RECIPE ?= mini
report: setup
	$(BIN)/ajbench report --recipe $(RECIPE)

# Writes the site to site/, without network; warnings are errors. `python -m http.server -d site` serves it.
docs: setup
	$(BIN)/python -m mkdocs build --strict --quiet

# Executes docs/notebook.ipynb and keeps its outputs.
notebook: setup
	$(BIN)/python docs/execute_notebook.py

# Known vulnerabilities of the pinned versions, from osv.dev; needs network. Part of every release.
vulnerabilities:
	@uv=$$(command -v uv || echo .uv/bin/uv); \
	"$$uv" tool run pip-audit --requirement requirements.lock --no-deps --disable-pip --vulnerability-service osv

clean:
	rm -rf work build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ajbench tests -name __pycache__ -type d -prune -exec rm -rf {} +
