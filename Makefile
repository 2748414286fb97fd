# `make demo` and `make test` are all that a newcomer needs; each creates .venv on its first call.
# `make demo` opens the studio at http://127.0.0.1:8501; PORT chooses another port.
# PYTHON chooses the interpreter (3.11 or newer), PIP_FLAGS goes to pip, e.g. an index with CPU builds of torch.
PYTHON ?= python3
PIP_FLAGS ?=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types benchmark clean

demo: $(READY)
	$(BIN)/u2a demo $(if $(PORT),--port $(PORT))

test: $(READY)
	$(BIN)/python -m pytest -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

benchmark: $(READY)
	$(BIN)/python benchmarks/scoring.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "U2A Studio needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Say: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt "torch"
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable ".[train,test,dev]"
	@touch $(READY)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache dist build
