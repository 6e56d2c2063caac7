# Two commands: `make run` and `make test`. Everything they need goes into .venv, from pinned constraints.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test test-all lint clean

run: .venv/.run
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/roberta run

test: .venv/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -m "not slow"

test-all: .venv/.test
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check .

.venv/.run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is %d.%d; name another one with: make PYTHON=python3.12 run" % sys.version_info[:2])'
	@echo "installing into .venv (once, some minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(INSTALL) -e .
	@touch $@

.venv/.test: .venv/.run
	@$(INSTALL) -e '.[test]'
	@touch $@

clean:
	rm -rf data models metrics plots logs reports .work
