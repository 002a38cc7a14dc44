# The commands of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo bench serve cluster cluster-down compare test test-unit lint types wheel lock

PY := .venv/bin/python

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup:  ## build .venv from the lock file; quick when nothing changed
	@bash requirements/setup.sh

demo: setup  ## rewrite, train, evaluate and report with the embedded model, about 8 minutes
	@$(PY) -m jobs.pipeline jobs/recipes/demo.yaml

serve: setup  ## answer over HTTP with the embedded model, and the demo's trained one if it is there
	@$(PY) -m jobs.serve

cluster: setup  ## a Ray cluster of four nodes on this machine, to submit jobs to
	@$(PY) -m cluster.local up

cluster-down:  ## end that cluster's processes, and no others
	@$(PY) -m cluster.local down

test: setup  ## all tests, with real engines, clusters and browsers
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: setup  ## the tests that need neither Ray nor a model, about a minute
	@$(PY) -m pytest tests/unit tests/numerics

bench: setup  ## measure speed against TRL, bare vLLM and fixed sampling, about half an hour
	@$(PY) -m benchmarks.run_all

lint: setup  ## style and format (ruff)
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types: setup  ## static types (pyright)
	@$(PY) -m pyright

compare: setup  ## the paper's table with the embedded model, about an hour
	@$(PY) -m jobs.compare jobs/recipes/compare.yaml

wheel: setup  ## dist/offsft-*.whl, which installs the command `offsft`
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --no-index -w dist .

lock:  ## make both lock files again from pyproject.toml
	@bash requirements/lock.sh
