PYTHON ?= python3
PIP_OPTIONS ?=
BIN := .venv/bin
# three processes on two cores: some wait for others that they start; in the folders' order
FAST := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup quickstart course report grade bench test coverage proof audit-table mutants margins lint

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

setup: .venv/ready ## make .venv and install what the levels need (once)

quickstart: setup ## the whole course on bundled digits and weights: minutes, no network, no GPU
	@$(BIN)/python -m common.course --offline

course: setup ## the course on CIFAR-10 with ImageNet weights (downloads both once), into reports/
	@$(BIN)/python -m common.course --reports reports

report: setup ## write reports/index.html and its pictures anew, without training
	@$(BIN)/python -m common.site

grade: setup ## recompute what the reports claim from the saved weights, and judge it
	@$(BIN)/python -m common.grade

bench: setup ## time every level against the plain pipeline, 2,000 digits (some minutes)
	@$(BIN)/python -m common.bench --quick --offline --reports runs/bench

test: .venv/ready-test ## the fast tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST)

coverage: .venv/ready-test ## the fast tests, and what of common/ they cover: 90 % at least
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(FAST) --cov --cov-report=term

proof: .venv/ready-test ## the slow tests: minutes to an hour
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --run-slow -n 2 --dist load

audit-table: .venv/ready-test ## write reports/audit.md anew: what the audit catches
	@PYTHONPATH=.:tests $(BIN)/python -m helpers.planted_bugs > reports/audit.md

margins: .venv/ready-test ## measure how far clean code stays from the audit's bounds (minutes)
	@PYTHONPATH=.:tests $(BIN)/python -m helpers.margins && $(MAKE) -s audit-table

mutants: .venv/ready-test ## change the code in 320 places, and see what catches it (hours)
	@PYTHONPATH=.:tests $(BIN)/python -m helpers.mutants $(MUTANTS)

lint: .venv/ready-test ## format, lint, and the order of common/'s rooms
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports

# -qq: pip's warnings about indexes are nobody's here; its errors are shown
.venv/ready: requirements.txt
	@echo "setting up .venv: torch and what goes with it, once (about 3 minutes, 6 GB on disk)"
	@$(PYTHON) -m venv .venv
	@$(if $(PIP_OPTIONS),$(BIN)/python -m pip install -qq $(PIP_OPTIONS) torch torchvision)
	@$(BIN)/python -m pip install -qq -r requirements.txt
	@touch $@

.venv/ready-test: .venv/ready requirements-test.txt requirements-extras.txt
	@echo "installing what the tests need, once"
	@$(BIN)/python -m pip install -qq -r requirements-test.txt
	@touch $@
