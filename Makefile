# Two commands need nothing but Python 3.11 or newer: make quickstart, make test.
# Variables: PHOTOS=folder (your photographs for the quickstart), PYTHON=python3.12, VENV=folder.

VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin
READY := $(VENV)/.pocketiqa-ready
RECIPE := quickstart
DATA ?= ../shared/data
STUDENTS := pocket-m pocket-s

.PHONY: setup quickstart test lint types docs populations wheel-check check int8 bench bench-teachers bench-serving campaign clean

quickstart: $(READY)
	$(BIN)/pocketiqa run $(RECIPE) $(if $(PHOTOS),--set 'pool.sources=["$(PHOTOS)"]' --out 'runs/$(RECIPE)-photos',)

# One thread for each of the two processes: more would wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

setup: $(READY)

# Made anew only when the packages change; a set-up that was interrupted is simply repeated.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found: install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing pocketiqa and what it needs into $(VENV) (several GB, some minutes, once) ..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

# The pages that are generated: recipes key by key, the command line.
docs: $(READY)
	$(BIN)/python -m tests.docs.reference

# The population, with stars and verdicts, of each student that comes along: again whenever one is trained anew.
# Some minutes of one core; needs the rated photographs (POCKETIQA_SHARED_DATA).
populations: $(READY)
	for model in $$($(BIN)/python -c 'from students.shipped import NAMES; print(*NAMES)'); do \
	$(BIN)/pocketiqa population "biq2021:$$POCKETIQA_SHARED_DATA/biq2021" "biq2021:$$POCKETIQA_SHARED_DATA/biq2021_more" \
	--name biq2021 --model $$model --out students/shipped/populations/biq2021.$$model.json --overwrite || exit 1; done

# Builds the wheel, installs it with the base dependencies only, and scores an image from an empty folder.
wheel-check: $(READY)
	$(BIN)/python tests/wheel/check.py

# The students of the package in 8 bits, with their cards; after every new float student. DATA holds biq2021 (its train
# part calibrates) and biq2021_more (which decides whether the rank correlation with people stays).
int8: $(READY)
	for name in $(STUDENTS); do OMP_NUM_THREADS=1 $(BIN)/pocketiqa export students/shipped/$$name.onnx --format onnx-int8 \
		--calibrate biq2021:$(DATA)/biq2021 --rated biq2021:$(DATA)/biq2021_more --card --overwrite \
		--out students/shipped/$$name-int8.onnx || exit 1; done

check: test lint types wheel-check

bench: $(READY)
	$(BIN)/python -m tests.bench

# Stable Diffusion and SAM in full size with random weights: some minutes, about 6 GB of memory; more on a GPU.
bench-teachers: $(READY)
	$(BIN)/python -m tests.bench teachers

# 20,000 requests to the server at twice what it can carry: some minutes.
bench-serving: $(READY)
	$(BIN)/python -m tests.bench serving

# 110 random kills over all commands that write, 500 mutants of all formats that are read: some six minutes.
# What was done is not done again; exit status 1 if anything is not as promised (docs/reliability.md).
campaign: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
