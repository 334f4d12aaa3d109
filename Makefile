# NYC taxi trip duration. `make` alone prints what can be done.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Without it every command compiles its imports where PYTHONDONTWRITEBYTECODE is set.
BYTECODE := --compile-bytecode

# Paths are relative: the project's own may hold spaces and signs that mean something to a shell.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --quiet
# One version of a package for all Pythons, though newer ones may exist for the newer Pythons: else
# a model's figures would depend on who trains it.
COMPILE := $(BIN)/uv pip compile --python $(BIN)/python --quiet --universal --fork-strategy fewest \
  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
PYTHONS := 3.11 3.12 3.13 3.14
PLATFORMS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu aarch64-apple-darwin

UNCOMPILED := Note: no C compiler with Python's headers was found, so the tree walker is not compiled: \
  same answers, slower rides.

# Where it is set, every process would compile our code and rewrite the tests anew: a third of
# the time in which the tests are collected, and a second of every command.
export PYTHONDONTWRITEBYTECODE :=

MINUTES := 1
MODULE := taxi_duration/live/arms.py
TESTS := tests/serve/test_arms.py

# Those that README and docs quote, the short ones first: hours together, most of them for scale.
BENCHES := read predictor chain serve score model scale

.DEFAULT_GOAL := help
.PHONY: help setup run pipeline data lab doctor serve image mlflow test test-long test-faults mutants \
  test-fast test-compose lint format lock sbom plots bench bench-read bench-chain bench-model bench-serve bench-rude \
  bench-log bench-predictor bench-test bench-scale bench-score bench-traffic screenshots clean \
  clean-all

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv from the hashed lock file

$(STAMP): requirements.txt pyproject.toml setup.py taxi_duration/model/_walker.pyx
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); give PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(INSTALL) $(BYTECODE) --require-hashes -r requirements.txt
	$(INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import taxi_duration.model._walker' 2>/dev/null || echo "$(UNCOMPILED)"
	touch $@

run: $(STAMP) ## Set up, then the whole chain: read, train, compare, save and register
	$(BIN)/python pipeline.py run

pipeline: run ## The same as run

data: $(STAMP) ## Fetch and prepare the months of TRAIN_DATA and VAL_DATA only
	$(BIN)/python pipeline.py data

# In a container the user is root, and HOST=0.0.0.0 lets its port be published; the token guards it.
lab: $(STAMP) ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks --allow-root --ip="$${HOST:-localhost}"

doctor: $(STAMP) ## Say what is wrong with machine, settings, MLflow's store, deployment, and the remedy
	$(BIN)/python pipeline.py doctor

serve: $(STAMP) ## Serve the deployed model on http://127.0.0.1:9696
	$(BIN)/python -m serve

image: ## Build the container image with the deployed model baked in
	docker build -t taxi-duration .

mlflow: $(STAMP) ## Serve MLflow's pages, and print the address of the runs
	$(BIN)/python pipeline.py mlflow

test: $(STAMP) ## Set up, then the tests, without the long ones
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not long"

test-long: $(STAMP) ## Only the long tests: the whole story, whole chains, killed and resumed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "long and not faults and not compose"

test-compose: $(STAMP) ## Bring compose.yaml up on a Docker engine, use it, break it, take it down
	$(BIN)/python -m pytest -m compose tests/test_compose_stack.py

test-faults: $(STAMP) ## Put faults into the running service, write docs/reliability.md; MINUTES=1
	RELIABILITY=docs/reliability.md FAULT_MINUTES=$(MINUTES) $(BIN)/python -m pytest -m faults

mutants: $(STAMP) ## Let mutants of one module live or die by its tests: MODULE=… TESTS=…
	$(BIN)/python benchmarks/mutants.py $(MODULE) $(TESTS)

test-fast: $(STAMP) ## Only the tests that take seconds
	$(BIN)/python -m pytest -n 2 -m "not slow and not long"

lint: $(STAMP) ## Check style, types, who imports whom, and that notebooks carry no output
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/nbstripout --verify notebooks/*.ipynb

format: $(STAMP) ## Mend what lint can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

lock: $(STAMP) ## Resolve the dependencies again; every Python and platform must have wheels
	$(COMPILE) pyproject.toml --group dev --group lab --group bench --output-file requirements.txt
	$(COMPILE) --group serve --constraints requirements.txt --output-file serve/requirements.txt
	$(COMPILE) pyproject.toml --group lab --group tune --constraints requirements.txt \
	  --output-file ops/requirements.txt
	$(COMPILE) --group serve-build --constraints requirements.txt \
	  --output-file serve/requirements-build.txt
	for lock in requirements.txt serve/requirements.txt; do for python in $(PYTHONS); do \
	  for platform in $(PLATFORMS); do $(BIN)/uv pip install --quiet --dry-run --no-deps \
	    --only-binary :all: --require-hashes --target build/wheels --python-version $$python \
	    --python-platform $$platform -r $$lock || exit 1; done; done; done

sbom: $(STAMP) ## Write build/sbom.json: every package of the image, with its hashes (CycloneDX)
	mkdir -p build
	$(BIN)/cyclonedx-py requirements serve/requirements.txt --pyproject pyproject.toml \
	  --output-reproducible --output-file build/sbom.json

# A busy machine is waited for, at most two minutes each; then its figures go to build/bench/.
bench: $(STAMP) ## Every bench that README quotes, one by one, and README's tables; NAME=chain runs one
	@$(BIN)/python benchmarks/results.py
	for name in $(or $(NAME),$(BENCHES)); do $(MAKE) bench-$$name || exit 1; done
	$(BIN)/python benchmarks/quotes.py --write

bench-read: $(STAMP) ## Measure reading a month, against pyarrow
	$(BIN)/python benchmarks/reading.py

bench-chain: $(STAMP) ## Measure the chain, a second run, and fits beside each other
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/branches.py

bench-model: $(STAMP) ## Measure every model's error and intervals on real months
	$(BIN)/python benchmarks/model.py
	$(BIN)/python benchmarks/windows.py

bench-serve: $(STAMP) ## Measure the service, against an empty view, the course's app and MLflow
	$(BIN)/python benchmarks/serving.py

bench-rude: $(STAMP) ## Measure it beside clients that drip, and other servers; what a request costs
	$(BIN)/python benchmarks/rude_clients.py
	$(BIN)/python benchmarks/request_parts.py

bench-log: $(STAMP) ## Measure a log of a million rides: page, feedback beside it, archive
	PYTHONPATH=. $(BIN)/python benchmarks/log.py

bench-predictor: $(STAMP) ## Measure one answer inside the process
	$(BIN)/python benchmarks/predictor.py

bench-test: $(STAMP) ## Simulate the sequential test of a challenger: false verdicts and power
	$(BIN)/python benchmarks/sequential_test.py

plots: ## Copy the newest run's plots into docs/
	mkdir -p docs && cd "$$(ls -dt runs/*/plots | head -n 1)" && cp leaderboard.png residuals.png "$(CURDIR)/docs/"

bench-score: $(STAMP) ## Measure scoring of months from Parquet to Parquet, against frames
	$(BIN)/python benchmarks/score.py

bench-traffic: $(STAMP) ## Replay months with the live traffic, with true and with false feedback
	$(BIN)/python benchmarks/traffic.py

bench-scale: $(STAMP) ## Measure what a row costs at 1 to 300 million rows; writes docs/scale.md
	$(BIN)/python benchmarks/scale.py

screenshots: $(STAMP) ## Take pictures of the pages into docs/; needs Chromium
	PYTHONPATH=. $(BIN)/python tests/browser/screenshots.py

clean: ## Remove what runs made: runs/, prepared months, caches
	rm -rf runs data/prepared data/sample data/scored build .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-all: clean ## Also remove models, tracking, deployment and .venv (raw months stay)
	rm -rf models tracking deployment .venv taxi_duration/model/*.so taxi_duration/model/_walker.c *.egg-info
