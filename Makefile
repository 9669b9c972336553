# The two commands a newcomer needs are `make quickstart` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROJECTS := profiles playbooks trust hub-protocol model-registry gateway console installer
COLLECTION := playbooks/ansible_collections/holdfast/platform
READY := $(VENV)/.ready
# The lab needs root: through sudo where it asks for no password, and not at all where there is none.
AS_ROOT = $(shell [ "$$(id -u)" -eq 0 ] || { sudo -n true 2>/dev/null && echo sudo -E; })

.PHONY: help quickstart test check format unit contract lab-test molecule lock docs clean-lab clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock $(PROJECTS:%=%/pyproject.toml) installer/bootstrap.sh
	@installer/bootstrap.sh $(PYTHON) $(VENV) $(PROJECTS)
	@touch $@

quickstart: $(READY) ## From nothing to an answered prompt in a sealed practice lab
	@$(AS_ROOT) $(BIN)/holdfast quickstart

test: $(READY) ## Everything: the checks, then every test, the lab included where this machine can boot one
	@$(MAKE) --no-print-directory check
	@$(BIN)/python tests/run_all.py

check: $(READY) ## Format, lint, types, import rules, fast tests; PART=gateway for one part's tests
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
ifneq (,$(filter playbooks,$(or $(PART),playbooks)))
	@cd $(COLLECTION) && PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint --offline --profile production -q
endif
	@$(BIN)/pytest -q -n 2 -m "not slow and not lab and not contract" $(if $(PART),tests/$(PART))

format: $(READY) ## Format, and mend what the linter can
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

unit: $(READY) ## The fast tests only
	@$(BIN)/pytest -q -n 2 -m "not slow and not lab and not contract"

contract: $(READY) ## The servers under their stock clients
	@$(BIN)/pytest -q -m "contract and not lab"

lab-test: $(READY) ## What needs root and real hosts
	@HOLDFAST_REQUIRE_LAB=1 $(BIN)/pytest -m lab tests/lab

molecule: $(READY) ## Damage each capability on the quickstart's hosts and have apply mend it
	@HOLDFAST_REQUIRE_LAB=1 $(BIN)/pytest -q -m lab tests/lab/test_molecule.py

lock: $(READY) ## Resolve requirements.in anew
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate \
	  $(PROJECTS:%=--no-emit-package holdfast-%) requirements.in -o requirements.lock

docs: $(READY) ## Write docs/reference from the code
	@$(BIN)/python docs/generate.py

clean-lab: $(READY) ## Remove the practice lab: processes, mounts, namespaces, bridge
	@if [ "$$(id -u)" -eq 0 ] || [ -n "$(AS_ROOT)" ]; then \
	  $(AS_ROOT) $(BIN)/holdfast lab down --name quickstart; fi
	@$(AS_ROOT) $(BIN)/holdfast down --local --state build/quickstart/local

clean: ## Remove what was built here; the cache outside the checkout stays
	@rm -rf build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
