# One word per habit. Everything is installed into .venv; nothing outside this folder is changed but the
# download cache ($XDG_CACHE_HOME or ~/.cache). `make demo` and `make test` are all a newcomer needs.
.DEFAULT_GOAL := help
.PHONY: help demo up test test-unit test-integration test-cluster cluster-up cluster-down images lint format \
	typecheck docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# For demo: options of `python -m demo`, as in make demo ARGS="--seed 2". For test: options of pytest.
ARGS ?=

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt pip uv
	@echo "Installing into $(VENV) (once; several GB because of PyTorch)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all]' --group dev
	@touch $@

demo: $(INSTALLED) ## Fine-tune, judge and promote on this machine, with no server
	@$(BIN)/python -m demo run $(ARGS)

up: $(INSTALLED) ## Start Airflow with the example DAGs at http://127.0.0.1:8080
	@$(BIN)/python -m demo up $(ARGS)

test: test-unit test-integration ## Run all tests that need no cluster

test-unit: $(INSTALLED) ## Run the tests that need no server, on all cores
	@$(BIN)/pytest tests/unit tests/golden --numprocesses auto --dist loadfile $(ARGS)

# In the order of their names, for the file with the fewest tests takes longest, and is not to be the last.
test-integration: $(INSTALLED) ## Run the tests with a real registry, Airflow and models, on all cores
	@$(BIN)/pytest tests/integration --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

cluster-up: $(INSTALLED) ## Start a Kubernetes for tests, as root, or repair it (the first time builds it)
	@$(BIN)/python -m tests.cluster up

cluster-down: $(INSTALLED) ## End that Kubernetes and remove all it left
	@$(BIN)/python -m tests.cluster down

# The first test waits for the cluster and its images to be built.
test-cluster: $(INSTALLED) ## Run the tests on Kubernetes: that one, or the one that KUBECONFIG names
	@$(BIN)/pytest tests/cluster --timeout 2400 $(ARGS)

images: ## Build the images of workloads on Kubernetes; with REGISTRY=host[:port], push them (see images/build.sh)
	@images/build.sh

lint: $(INSTALLED) ## Style, formatting and the layers' contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

format: $(INSTALLED) ## Put the code into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

typecheck: $(INSTALLED) ## mypy
	@$(BIN)/mypy

docs: $(INSTALLED) ## Build the documentation into build/docs, failing on broken links
	@$(BIN)/mkdocs build --strict --quiet --site-dir build/docs
	@echo "build/docs/index.html"

clean: ## Remove everything that was made here (not the download cache)
	rm -rf $(VENV) .demo build dist
