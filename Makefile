# Everything a developer needs; each target sets up its environment by itself.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check
FAST := not slow and not interop
SIDE_BY_SIDE := -n 2 --dist loadfile

.PHONY: demo test test-interop test-slow test-torch docs lint types format hooks clean

# .venv with one of the extras: .venv/.test, .venv/.dev, .venv/.docs. The version, which is installed too, stands in __init__.py.
.venv/.%: pyproject.toml constraints.txt src/normkit/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[$*]'
	touch $@

demo: .venv/.train
	rm -rf runs/demo
	$(BIN)/normkit train --data digits --norm batch --norm none --verify --out runs/demo

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.test
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest -m "$(FAST)" $(SIDE_BY_SIDE) --cov

# with JAX, ONNX and transformers
test-interop: .venv/.dev
	$(BIN)/pytest -m "interop and not slow" $(SIDE_BY_SIDE)

test-slow: .venv/.dev
	$(BIN)/pytest -m slow

# The fast tests on another torch, in an environment of its own: make test-torch TORCH=2.11.0
# The documents show what the pinned torch says.
OTHER := .venv-torch-$(TORCH)
test-torch:
	@test -n "$(TORCH)" || { echo "which torch? make test-torch TORCH=2.11.0" >&2; exit 2; }
	test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	sed 's/^torch==.*/torch==$(TORCH)/' constraints.txt > $(OTHER)/constraints.txt
	$(OTHER)/bin/python $(INSTALL) -c $(OTHER)/constraints.txt -e '.[test]'
	$(OTHER)/bin/python -c 'import torch; print("torch", torch.__version__)'
	$(OTHER)/bin/pytest -m "$(FAST)" $(SIDE_BY_SIDE) --ignore=tests/documents

# The site, in site/; a warning is an error. The notice that it silences is about the future of MkDocs.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# lint and types before each commit
hooks: .venv/.dev
	$(BIN)/pre-commit install

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-torch-* runs dist build site .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis
