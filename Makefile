.PHONY: install test lint docs gallery design clean
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

# The site with the reports of its gallery to open; takes minutes the first time.
gallery:
	$(VENV)/bin/python docs/hooks/gallery.py
	$(MAKE) docs

design:
	$(VENV)/bin/interpretkit catalyst design

clean:
	rm -rf .cache .pytest_cache .ruff_cache build dist
