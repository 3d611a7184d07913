# Two commands set everything up: `make demo` (light core, no PyTorch) and `make test` (everything).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

.PHONY: demo test lint types suite docs lowest clean

demo: .venv/.demo
	$(BIN)/isoflop demo --out demo

test: .venv/.test lint types suite

lint: .venv/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . || (echo "run: $(BIN)/ruff check --fix . && $(BIN)/ruff format ." && exit 1)

types: .venv/.test
	$(BIN)/mypy

suite: .venv/.test
	$(BIN)/python -m pytest --numprocesses auto

docs: .venv/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isoflop needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[plot]'
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[plot,parquet,torch,bayes,ray,think,page,sklearn,hf,import,docs,trackers,test]'
	touch $@ .venv/.demo

# The core's tests at the lower bounds of its dependencies; their own deprecation warnings are not ours to mend.
lowest: .venv-lowest/.done
	.venv-lowest/bin/python -m pytest -W ignore -p no:cacheprovider --ignore tests/test_report.py

.venv-lowest/.done: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt \
		--editable '.[plot,parquet]' polars pytest hypothesis
	touch $@

clean:
	rm -rf .venv .venv-lowest demo site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
