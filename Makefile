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

components/environments/%/.venv/.synced: components/environments/%/pyproject.toml components/environments/%/uv.lock pyproject.toml | $(UV)
	@echo "installing the environment $*"
	@cd components/environments/$* && $(UV) sync --frozen --quiet && touch .venv/.synced

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

.PHONY: lock
lock: | $(UV) ## renew every lock
	$(UV) lock --upgrade; for e in $(ENVIRONMENTS); do (cd components/environments/$$e && $(UV) lock --upgrade); done

.PHONY: clean
clean: ## remove environments and state
	rm -rf .venv .tools .crispline $(ENVIRONMENTS:%=components/environments/%/.venv)
