# Two commands for a fresh machine with Python 3.10 to 3.13 and make:
#   make demo   train, sparsify, fine-tune and compact LeNet on real digits; writes demo/report.html
#   make test   run all tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: demo test test-nojit lint docs clean

demo: $(VENV)/installed
	$(BIN)/minissl demo --out demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# the layers, sparsity functions and solver once more, as plain Python without the compiler
test-nojit: $(VENV)/installed-test
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest tests/layers tests/sparsity tests/solvers $(PYTEST_ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build -W --keep-going docs docs/_build

clean:
	rm -rf $(VENV) build docs/_build demo

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@ $(VENV)/installed
