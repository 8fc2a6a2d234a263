# Every target is a thin call; `make help` lists them. Nothing here needs more than make, git, and Python 3.11 or later.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
RECIPE ?= recipes/digits.yaml
EXPERIMENT ?= recipes/digits.experiment.yaml
OVERLAY ?= demo
ARGS ?=
BIN := .venv/bin
EMBERLINE := $(BIN)/emberline
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)
IMAGE ?= emberline:$(VERSION)

export PYTHON TORCH_INDEX

.PHONY: help
help: ## list all targets
	@echo "make TARGET [RECIPE=recipes/digits.yaml] [ARGS='more options of the verb']"
	@awk -F ':[^#]*## ' '/^[a-z%-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

## ---- set up

.PHONY: setup setup-tests lock
setup: ## make .venv and install everything (TORCH_INDEX=URL for another build of torch)
	@scripts/setup.sh

setup-tests: ## the same, and what only tests use (a browser)
	@scripts/setup.sh --tests

lock: setup ## write constraints.txt from .venv, after its tests have passed
	@{ echo "# What every install is held to; made by 'make lock' from an environment that passed the tests."; \
	   $(BIN)/pip freeze --exclude-editable | sed -E 's/\+(cpu|cu[0-9]+|rocm[0-9.]+)$$//'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt && git --no-pager diff --stat -- constraints.txt

## ---- use

.PHONY: demo train compress archive serve compare down doctor
demo: setup ## the whole path on the digits; KEEP=1 leaves it up
	@$(EMBERLINE) demo $(RECIPE) $(if $(KEEP),--keep) $(ARGS)

train: setup ## train elastically, or say that the finished run is reused
	@$(EMBERLINE) train $(RECIPE) $(ARGS)

compress: train ## make the artifacts of a run, measured before and after
	@$(EMBERLINE) compress $(RECIPE) $(ARGS)

archive: compress ## put the artifacts into signed .mar files
	@$(EMBERLINE) archive $(RECIPE) $(ARGS)

serve: setup ## build what is missing, serve it behind the router, and print a curl line
	@$(EMBERLINE) up $(RECIPE) $(ARGS)

compare: setup ## assess an experiment on what was seen so far (EXPERIMENT=file)
	@$(EMBERLINE) compare $(EXPERIMENT) $(ARGS)

down: setup ## stop what `make serve` or `make demo KEEP=1` left up
	@$(EMBERLINE) down $(ARGS)

doctor: setup ## what this machine has and lacks, and what each lack costs
	@$(EMBERLINE) doctor $(ARGS)

## ---- develop

.PHONY: test test-all check format readme clean clean-all
test: setup ## the tests, less the long ones, side by side (ARGS="-n 0": one after the other)
	@$(BIN)/pytest -m "not long" -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-all: setup-tests ## all tests
	@$(BIN)/pytest $(ARGS)

check: setup ## formatting, lint, types, floors
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/readme.py --check

format: setup ## let ruff format and mend what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

readme: setup ## write the README's blocks and tables from logs and results
	@$(BIN)/python scripts/readme.py $(ARGS)

bench-demo: setup ## record the demo for the README
	@$(BIN)/python benchmarks/demo.py

bench-%: setup ## run the keys of benchmarks/NAME/, or ONLY=key, into benchmarks/results/NAME.json (FRESH=1: anew)
	@$(BIN)/python benchmarks/suite.py $* $(if $(ONLY),ONLY=$(ONLY)) $(if $(FRESH),FRESH=$(FRESH))

clean: ## remove caches and builds
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find platform handlers tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

clean-all: clean ## also runs, store, keys, data, state, report and .venv: everything that git does not know
	@if [ -x $(EMBERLINE) ]; then $(EMBERLINE) down; fi
	@rm -rf runs store keys data state report .venv

## ---- Kubernetes

.PHONY: image kind apply
image: ## build the container image (TORCH_INDEX=URL for another build of torch)
	@docker info >/dev/null 2>&1 || { echo "error: no Docker engine answers; 'make image' builds with it" >&2; \
	  echo "hint: install and start one, then: docker info" >&2; exit 1; }
	docker build -f k8s/image/Dockerfile --build-arg TORCH_INDEX="$${TORCH_INDEX:-}" -t $(IMAGE) .

kind: ## a kind cluster of one node with the image and the demo overlay
	@for tool in docker kind kubectl; do command -v $$tool >/dev/null || { echo "error: $$tool is not installed; 'make kind' needs it" >&2; \
	  echo "hint: https://kind.sigs.k8s.io/docs/user/quick-start" >&2; exit 1; }; done
	@$(MAKE) image
	@kind get clusters | grep -qx emberline || kind create cluster --name emberline
	kind load docker-image --name emberline $(IMAGE)
	kubectl config use-context kind-emberline
	@$(MAKE) apply OVERLAY=$(OVERLAY)

apply: ## apply the CRD, wait for it, then k8s/overlays/OVERLAY to the cluster of the current context
	@command -v kubectl >/dev/null || { echo "error: kubectl is not installed" >&2; \
	  echo "hint: https://kubernetes.io/docs/tasks/tools" >&2; exit 1; }
	kubectl apply -k k8s/crd
	kubectl wait --for=condition=Established --timeout=60s crd/experiments.emberline.dev
	kubectl apply -k k8s/overlays/$(OVERLAY)
