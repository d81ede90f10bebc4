# Two commands matter: `make demo` and `make test`. Needs git, make and a Python 3.11 or newer.
SHELL := /bin/bash
.DEFAULT_GOAL := help
STATE ?= .crispline/demo
ENVIRONMENTS := pipeline serving monitoring

# uv: the one on PATH, else one in .tools, installed by pip. UV_PYTHON: a Python 3.12 that starts, else uv fetches one.
UV := $(shell command -v uv 2>/dev/null || echo $(CURDIR)/.tools/bin/uv)
UV_PYTHON ?= $(shell for python in python3.12 $(HOME)/.pyenv/versions/3.12.*/bin/python3.12; do "$$python" -c '' 2>/dev/null && { command -v "$$python"; break; }; done)
ifeq ($(UV_PYTHON),)
UV_PYTHON := 3.12
endif
export UV_PYTHON
export MLFLOW_DISABLE_TELEMETRY := true
# Kept bytecode halves the time of everything that starts a Python with heavy packages, tests included; some machines forbid it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(CURDIR)/.tools/bin/uv:
	python3 -m venv .tools && .tools/bin/pip install --quiet 'uv>=0.8'

.PHONY: setup
setup: $(UV) .venv/.synced $(ENVIRONMENTS:%=components/environments/%/.venv/.synced) ## install every environment from its lock

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@echo "installing the command line"
	@$(UV) sync --frozen --quiet && touch $@

# What use cases need beyond an environment comes after it: a sync takes out whatever its lock does not name.
.SECONDEXPANSION:
components/environments/%/.venv/.synced: components/environments/%/pyproject.toml components/environments/%/uv.lock pyproject.toml $$(wildcard usecases/*/requirements/$$*.txt) .venv/.synced | $(UV)
	@echo "installing the environment $*"
	@cd components/environments/$* && $(UV) sync --frozen --quiet
	@.venv/bin/crispline packages install $* >/dev/null && touch $@

.PHONY: demo
demo: setup ## the whole loop on a year of real flights; options in ARGS, e.g. make demo ARGS=--fast
	@.venv/bin/crispline demo --state $(STATE) $(ARGS)

.PHONY: test
test: setup ## everything: format, lint, types, unit, contract, integration and end-to-end tests
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint types test-root $(ENVIRONMENTS:%=test-%)

.PHONY: lint
lint: setup ## format and lint
	@.venv/bin/ruff format --no-cache --check . && .venv/bin/ruff check --no-cache .

# Each part of the code is checked in the environment that it runs in.
.PHONY: types
types: setup ## mypy, strict
	@.venv/bin/mypy --cache-dir .mypy_cache/root components/contracts
	@components/environments/pipeline/.venv/bin/mypy --cache-dir .mypy_cache/pipeline pipelines benchmarks usecases \
		components/understanding components/data_engineering components/model_engineering components/evaluation components/deployment
	@components/environments/serving/.venv/bin/mypy --cache-dir .mypy_cache/serving components/model_server
	@components/environments/monitoring/.venv/bin/mypy --cache-dir .mypy_cache/monitoring components/monitoring

# A test file names its environment by its marker (pytestmark = pytest.mark.<environment>); conftest.py leaves the others out.
.PHONY: test-root
test-root: setup
	@.venv/bin/pytest -q

.PHONY: $(ENVIRONMENTS:%=test-%)
$(ENVIRONMENTS:%=test-%): test-%: setup
	@components/environments/$*/.venv/bin/pytest -q -n 2 --dist loadfile

.PHONY: test-charts
test-charts: setup ## tests of the charts alone; they need helm, and kubeconform with CRISPLINE_SCHEMAS
	@.venv/bin/pytest -q -n 2 --dist loadfile tests/charts $(ARGS)

# Two files at a time: most of their time they wait for pods; then those that kill what all pods need. Read from the environment: KUBECONFIG,
# CRISPLINE_IMAGE_LOAD, CRISPLINE_SCHEMAS, CRISPLINE_RESTART_NODE_COMPONENT; see docs/how-to/build-images.md.
.PHONY: test-cluster
test-cluster: setup ## tests on the Kubernetes that KUBECONFIG names; ARGS=<options of pytest>
	@components/environments/pipeline/.venv/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "cluster and not cluster_long and not cluster_alone" tests/cluster $(ARGS)
	@components/environments/pipeline/.venv/bin/pytest -q -m cluster_alone tests/cluster $(ARGS) || [ $$? = 5 ]  # 5: ARGS chose none of these

.PHONY: test-cluster-long
test-cluster-long: setup ## those that take longer than CI waits
	@components/environments/pipeline/.venv/bin/pytest -q -m cluster_long tests/cluster $(ARGS)

.PHONY: lock
lock: | $(UV) ## renew every lock
	$(UV) lock --upgrade; for e in $(ENVIRONMENTS); do (cd components/environments/$$e && $(UV) lock --upgrade); done
	.venv/bin/crispline packages lock

.PHONY: clean
clean: ## remove environments and state
	rm -rf .venv .tools .crispline $(ENVIRONMENTS:%=components/environments/%/.venv)
