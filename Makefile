.PHONY: install test lint docs design clean
VENV ?= .venv

install:
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt -e ".[test,mlip]"

test:
	$(VENV)/bin/python -m pytest -n 2

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

docs:
	$(VENV)/bin/pip install -c constraints.txt -e ".[docs]"
	$(VENV)/bin/mkdocs build --strict

design:
	$(VENV)/bin/interpretkit catalyst design

clean:
	rm -rf .cache .pytest_cache .ruff_cache build dist
