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

.PHONY: setup quickstart test lint types docs trust populations type-heads intervals wheel-check check int8 bench \
	bench-teachers bench-serving campaign many-machines ray-check object-stores scale formats-check web web-check \
	web-test clean

quickstart: $(READY)
	$(BIN)/pocketiqa run $(RECIPE) $(if $(PHOTOS),--set 'pool.sources=["$(PHOTOS)"]' --out 'runs/$(RECIPE)-photos',)

# One thread for each of the two processes: more would wait for each other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope

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

# Tables and picture of docs/trust.md: again whenever a student that comes along is trained anew (POCKETIQA_SHARED_DATA).
trust: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.docs.trust

# The population, with stars and verdicts, of each student that comes along: again whenever one is trained anew.
# Some minutes of one core; needs the rated photographs (POCKETIQA_SHARED_DATA).
populations: $(READY)
	for model in $$($(BIN)/python -c 'from students.shipped import NAMES; print(*NAMES)'); do \
	$(BIN)/pocketiqa population "biq2021:$$POCKETIQA_SHARED_DATA/biq2021" "biq2021:$$POCKETIQA_SHARED_DATA/biq2021_more" \
	--name biq2021 --model $$model --out students/shipped/populations/biq2021.$$model.json --overwrite || exit 1; done

# What is wrong: the head of each student that comes along. After fit-look and fit-pairs; before int8, whose files take
# the heads over, and before populations and intervals, whose records name the digest.
type-heads: $(READY)
	for name in $(STUDENTS) pocket-l; do OMP_NUM_THREADS=1 $(BIN)/pocketiqa fit-types $(DATA)/bsds500/images \
		--model students/shipped/$$name.onnx --features runs/types/$$name --out students/shipped/$$name.onnx \
		--confusion --overwrite || exit 1; done

# Intervals of the students that come along, from students of ratings alone in five folds of scenes: about an hour.
intervals: $(READY)
	for name in $(STUDENTS); do OMP_NUM_THREADS=1 $(BIN)/pocketiqa fold-scores biq2021_labels_alone \
		--set distill.student.name=$$name --runs runs/intervals/$$name --out runs/intervals/$$name.csv --overwrite \
		&& for model in $$name $$name-int8; do $(BIN)/pocketiqa intervals biq2021:$(DATA)/biq2021 \
		biq2021:$(DATA)/biq2021_more --scores runs/intervals/$$name.csv --folds --model $$model --overwrite \
		--domain "photographs like those of BIQ2021 (512x512 pixels, its three subsets), by students of ratings alone" \
		--out students/shipped/$$model.intervals.json || exit 1; done || exit 1; done

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

# 110 random kills over 28 cases of commands that write, 500 mutants of all formats that are read: some six minutes.
# What was done is not done again; exit status 1 if anything is not as promised (docs/reliability.md).
campaign: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign

# The short form of many-machines: a local cluster of Ray of which workers die. Installs Ray (245 MB), which "all" leaves
# out.
ray-check: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/teachers/test_on_ray.py

# Three local nodes of Ray label 1,000 images in 40 shards while 20 workers and a node are killed; then one node against
# two. Some minutes; installs Ray (245 MB), which "all" leaves out. Exit status 1 if anything is not as promised.
many-machines: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign.many_machines

# Three processes label 240 images into a bucket of a real S3 server while 20 of them are killed and every tenth answer
# fails, is lost, cut or slow. Some minutes. Exit status 1 if anything is not as promised (docs/object-stores.md).
object-stores: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign.object_stores

# Pools of 10,000 to a million rows through pool, label, audit, fuse and the reading of distill: some minutes of one core.
# Goes on where it was stopped. Exit status 1 if time or memory is not linear, or above 2 GB (docs/scale.md).
scale: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaign.scale

# Students in the formats of other runtimes, each run by its own: installs what "all" leaves out (0.5 GB), so that of these
# tests only those are skipped that convert for LiteRT. LONG=1: those too, in an environment that is made once (7 GB).
FORMAT_TESTS := tests/students/formats/test_packages.py tests/students/formats/test_core_ml_program.py \
	tests/students/test_engines.py tests/distill/stages/test_formats.py
formats-check: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[openvino,ncnn,coreml,executorch,litert]'
	$(if $(LONG),$(BIN)/python -m tests.helpers.formats)
	POCKETIQA_ALL_FORMATS=$(if $(LONG),long,short) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs $(FORMAT_TESTS) \
		$(if $(LONG),tests/distill/stages/test_converting.py tests/distill/commands/test_formats.py)

# The page for browsers: its scripts into the Python package (commit them), the npm package into web/dist, and
# onnxruntime-web, which `pocketiqa web` finds in web/node_modules. Needs node 20.19 or newer.
WEB_READY := web/node_modules/.pocketiqa-ready

web: $(WEB_READY)
	cd web && npm run --silent types && npm run --silent build && npm run --silent page

$(WEB_READY): web/package-lock.json
	cd web && npm ci
	@touch $@

# Unit tests of the package, then the page in headless Chromium against `pocketiqa score`, with real photographs, and the
# example that scores in JavaScript, which needs the packages of web/.
web-test: $(READY) $(WEB_READY)
	cd web && npm run --silent types && npm test
	$(BIN)/python -m pytest -rs tests/distill/browser tests/students/test_port_examples.py

# The same in short, for CI; without node nothing is tested, and without Chromium only what needs none.
web-check: $(READY)
	@if command -v npm >/dev/null; then POCKETIQA_WEB_SHORT=1 $(MAKE) web-test; \
	else echo "web-check skipped: this machine has no node with npm"; fi

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache web/node_modules web/dist
