# The commands of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo serve cluster cluster-down compare test test-unit lint types lock

PY := .venv/bin/python

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

setup:  ## build .venv from the lock file; quick when nothing changed
	@bash requirements/setup.sh

demo: setup  ## rewrite, train, evaluate and report with the embedded model
	@$(PY) -m jobs.pipeline jobs/recipes/demo.yaml

serve: setup  ## answer over HTTP with the embedded model, and the demo's when it is there
	@$(PY) -m jobs.serve

cluster: setup  ## a Ray cluster of four nodes on this machine, to submit jobs to
	@$(PY) -m cluster.local up

cluster-down:  ## end that cluster
	@$(PY) -m cluster.local down

test: setup  ## all tests
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: setup  ## the tests that need neither Ray nor a model, about a minute
	@$(PY) -m pytest tests/unit tests/numerics

lint: setup  ## style
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: setup  ## static types
	@$(PY) -m pyright

compare: setup  ## the paper's table with the embedded model, about an hour
	@$(PY) -m jobs.compare jobs/recipes/compare.yaml

lock:  ## make both lock files again from pyproject.toml
	@bash requirements/lock.sh
