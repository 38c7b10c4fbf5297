# Every target sets up what it needs in .venv, uses it while it is current, and says what it is doing.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

RUN_STAMP := $(VENV)/.veriframe-run
DEV_STAMP := $(VENV)/.veriframe-dev

.PHONY: help demo test lint format up bench chaos hostile dashboard soak scaling audit results clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" && $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer was not found; install it with its venv module, or call make PYTHON=/path/to/python"; exit 2; }
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "making $(VENV) failed; on Debian and Ubuntu: apt-get install python3.11-venv"; exit 2; }

$(RUN_STAMP): $(VENV)/bin/pip pyproject.toml constraints.txt
	@echo "== installing veriframe and what it runs on into $(VENV) (several hundred MB on the first run)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	@echo "== installing what the tests need"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,otel,postgres,s3,train]'
	@touch $@

demo: $(RUN_STAMP) ## watch videos go through the whole system: make demo [VIDEO=file-or-folder]
	@$(BIN)/veriframe demo $(if $(VIDEO),"$(VIDEO)")

test: $(DEV_STAMP) ## lint, types, layers and every test, two files at a time; ARGS=... goes to pytest instead
	@$(MAKE) --no-print-directory lint
	@echo "== tests"
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist loadfile)

lint: $(DEV_STAMP) ## ruff, mypy, spelling
	@echo "== lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell

format: $(DEV_STAMP) ## rewrite the code in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

up: $(RUN_STAMP) ## run broker, worker, janitor and API on this machine
	@$(BIN)/veriframe up

bench: $(RUN_STAMP) ## what a video costs here, beside the usual loop: make bench [QUICK=1] [THREADS=n] [RECALL=folder] [CLIPS="..."]; writes reports/bench.json
	@$(BIN)/veriframe bench $(if $(QUICK),--quick) $(if $(THREADS),--threads $(THREADS)) $(if $(RECALL),--recall "$(RECALL)") $(CLIPS)

chaos: $(DEV_STAMP) ## kill things at random under load; writes reports/chaos.json
	@$(BIN)/python -m tests.chaos

hostile: $(DEV_STAMP) ## hostile corpus (CORPUS=folder), 5,000 mutations, canaries; writes reports/hostile.json
	@$(BIN)/python -m tests.hostile $(if $(CORPUS),--corpus "$(CORPUS)")

dashboard: $(DEV_STAMP) ## figures and pictures of the review pages; writes reports/dashboard.json
	@$(BIN)/python -m tests.browser

results: $(DEV_STAMP) ## train what the studies' claims need: make results FACES=folder [MINUTES=120]; writes training/RESULTS.md
	@test -n "$(FACES)" || { echo "make results needs FACES=folder: face crops with an index.csv"; exit 2; }
	@$(BIN)/veriframe-train report --faces "$(FACES)" --minutes $(or $(MINUTES),120)

soak: $(DEV_STAMP) ## mixed load on real workers: make soak [MINUTES=10]; writes reports/soak.json
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),10)

scaling: $(DEV_STAMP) ## prices of ledger, broker and janitor, 1 to 10,000 workers; writes reports/scaling.json
	@$(BIN)/python -m tests.scaling

audit: $(DEV_STAMP) ## known vulnerabilities of the pinned set (asks an advisory database)
	@$(BIN)/python -m tests.audit

clean: ## forget .venv, reports and caches
	@rm -rf $(VENV) reports .mypy_cache .ruff_cache .pytest_cache
