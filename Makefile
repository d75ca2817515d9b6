# The two commands a newcomer needs: `make serve` and `make test`. Both set up all they need under .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: serve test lint bench clean

serve: $(VENV)/serve.done  ## compile the bundled model (once) and serve it at http://127.0.0.1:8000
	$(BIN)/oi-run --http

test: $(VENV)/test.done  ## pass all tests
	$(BIN)/python -m pytest

lint: $(VENV)/test.done  ## style, types, import rules, the README's figures
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.typecheck
	$(BIN)/lint-imports
	$(BIN)/python -m bench.report --check

bench: $(VENV)/bench.done  ## microbenchmarks of every kernel this machine can run
	$(BIN)/python -m pytest bench --benchmark-only

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.done: setup.py | $(BIN)/python
	$(PIP) -e '.[compile,cuda]'
	touch $@

$(VENV)/test.done: setup.py | $(BIN)/python
	$(PIP) -e '.[compile,cuda,test]'
	touch $@

$(VENV)/bench.done: setup.py | $(BIN)/python
	$(PIP) -e '.[compile,cuda,bench]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
