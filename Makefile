# `make help` lists the targets; each is a line that people type.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup run test test-faults bench memory crosscheck honesty time-gate scale forms claims catalogue baseline schema clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/installed ## Make .venv with every extra that the other targets need

run: setup ## The main job: specs/segmentation.yaml, tables in the terminal and under reports/segmentation
	$(BIN)/attnprof run specs/segmentation.yaml

test: setup ## Lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q
	OMP_NUM_THREADS=1 $(BIN)/attnprof gate specs/survey.yaml --baseline specs/baselines/catalogue.json --strict -q

test-faults: setup ## Every fault that a run must survive, those that take long included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m fault -n 2 --dist loadfile -rP

bench: setup ## reports/bench.md: speed and memory against the other counters, side by side
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.bench --out reports/bench.md

memory: setup ## reports/memory.md: traced, calibrated and measured peaks of the catalogue
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.memory_page --out reports/memory.md

crosscheck: setup ## reports/crosscheck.md: every counter over the whole catalogue
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.crosscheck_page --out reports/crosscheck.md

honesty: setup ## reports/interval_honesty.md: do the intervals hold what they say (an hour on an idle machine)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.interval_honesty

time-gate: setup ## reports/time_gate_honesty.md: does the time gate cry wolf (an hour and a half on an idle machine)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.time_gate_honesty --resume

scale: setup ## reports/scale.md: how time and memory grow with the number of cases (minutes on an idle machine)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.scale_page --out reports/scale.md

forms: setup ## attnprof/profiling/forms/kept: closed forms of the catalogue, found and verified anew
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.forms_kept

claims: setup ## reports/claims.md, .csv: every published number, counted again
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.claims_page

catalogue: setup ## What the mechanisms' files make: reports/catalogue.md, specs of families, tables of README
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.makers.doc_tables

baseline: setup ## specs/baselines/catalogue.json: what the catalogue costs now; read the diff
	OMP_NUM_THREADS=1 $(BIN)/attnprof baseline save specs/survey.yaml -o specs/baselines/catalogue.json --exact-only

schema: setup ## specs/schema.json from the code
	$(BIN)/attnprof schema > specs/schema.json

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
