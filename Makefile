# What one does with trunkmgr; `make` lists it. Needs make and Python 3.11 or newer with venv, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Extra words for pytest, for example: make test ARGS="tests/trunkmgr -x"
ARGS ?=
FUZZ ?= 10

.DEFAULT_GOAL := help
.PHONY: help venv run demo sim test lint profiles rfc bench lock fuzz mutants

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.ready

run: $(VENV)/.ready  ## Start everything in one process (settings: .env, see .env.example)
	@set -a; if [ -f .env ]; then . ./.env; fi; set +a; exec $(BIN)/python manage.py up

demo: $(VENV)/.ready  ## The same with a simulated provider and PBX, and a call every few seconds
	@exec $(BIN)/python -m simulation.demo

sim: $(VENV)/.ready  ## Prove registrations over weeks of virtual time (SIM_SEED=7, SIM_SHORT=1, SIM_FAULT=late_refresh)
	@exec $(BIN)/python -m simulation.sim

test: $(VENV)/.ready-dev  ## Run all tests (real peers where they are installed)
	@exec $(BIN)/pytest $(ARGS)

lint: $(VENV)/.ready-dev  ## Run ruff, mypy and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

profiles: $(VENV)/.ready-dev  ## Write the table of docs/profiles.md from trunkmgr/profiles
	@exec $(BIN)/python -m tests.profile_table

rfc: $(VENV)/.ready-dev  ## Write docs/rfc.md: which test pins which rule
	@exec $(BIN)/python -m tests.rfc_index

fuzz: $(VENV)/.ready-dev  ## Fuzz each parser for FUZZ seconds (default 10) from the kept corpus
	@exec $(BIN)/python -m tests.fuzz $(FUZZ)

mutants: $(VENV)/.ready-dev  ## Break rules of the core one at a time: a test of each must turn red (MUTANTS="--sample 15")
	@exec $(BIN)/python -m mutants.run $(MUTANTS)

bench: $(VENV)/.ready  ## Measure against Kamailio, interleaved
	@cd bench && exec ./bench.py compare --adapter ./sut_trunkmgr.sh

lock:  ## Resolve requirements*.in anew into requirements*.txt (Python 3.11)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "The pins are for Python 3.11: make lock PYTHON=python3.11" >&2; exit 1; }
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for name in requirements requirements-dev; do \
		$(PYTHON) -m venv "$$folder/$$name"; \
		"$$folder/$$name/bin/pip" install -q --disable-pip-version-check -r $$name.in; \
		{ echo "# Made by make lock from $$name.in on Python 3.11; do not edit."; \
		  "$$folder/$$name/bin/pip" freeze --disable-pip-version-check; } > "$$folder/$$name.txt"; \
	done; \
	mv "$$folder/requirements.txt" "$$folder/requirements-dev.txt" .

# Stamps: packages are installed again only when the list has changed.
$(VENV)/.ready: requirements.txt | $(BIN)/python
	@echo "Installing the packages of requirements.txt …"
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt $(VENV)/.ready
	@echo "Installing the packages of requirements-dev.txt …"
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "trunkmgr needs Python 3.11 or newer. Install the Debian packages python3 and python3-venv." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "trunkmgr needs Python 3.11 or newer; $(PYTHON) is older. Install the Debian packages python3 and" \
		  "python3-venv (bookworm or newer), or name another one: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "trunkmgr needs venv. Install the Debian package python3-venv." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
