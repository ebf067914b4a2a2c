# make demo: compile, verify, run and time a real network.   make test: the tests.   Both make .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint bench clean

demo: $(READY)
	$(BIN)/python -m examples.demo

# A worker a core. A file's tests stay with one worker, so that what they compile together is compiled once.
WORKERS := -n auto --dist loadfile
# Many tests start Python: without bytecode a child compiles convc's sources first, each time.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest $(WORKERS) -m "slow or not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[compare]"
	$(BIN)/python -m benchmarks.models --vs onnxruntime,openvino,mnn,ncnn --threads 1,2

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"convc must have Python 3.11 to 3.13; got {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
