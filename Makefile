# Every task of this repository. `make` alone lists them.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
export PYTHONPATH := $(CURDIR)/include

.PHONY: help demo ui test check bench deploy-env lock clean runtime dev

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: runtime ## a whole night with two sides, on made-up clips, here
	@$(PYTHON) -m clip_courier_demo night

ui: runtime ## the same in Airflow's user interface, on this machine only
	@$(PYTHON) -m clip_courier_demo ui

test: dev ## the tests, two files at a time; ARGS="-k ledger" narrows them
	@$(PYTHON) -m pytest -n 2 --dist loadfile --durations=15 $(ARGS)

check: dev ## lint, format, types, layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy --strict include
	@.venv/bin/lint-imports

bench: runtime | .venv-bench .venv-anonymity ## the measurements in benchmarks/
	@set -- benchmarks/*.py; for script; do echo "== $$script"; $(PYTHON) "$$script" || exit 1; done

# What only the contenders need, beside .venv: the measurements put it on their path.
.venv-bench: benchmarks/requirements.txt | runtime
	@rm -rf $@
	@.venv/bin/uv pip install -q --python $(PYTHON) --target $@ --require-hashes --no-deps -r $<
	@touch $@

# A contender that needs an older pandas: only its own process has it on its path.
.venv-anonymity: benchmarks/anonymity.txt | runtime
	@rm -rf $@
	@.venv/bin/uv pip install -q --python $(PYTHON) --target $@ --require-hashes --no-deps -r $<
	@touch $@

deploy-env: runtime ## fresh secrets and stand-in vendors for docker-compose.yaml
	@$(PYTHON) deploy/make_env.py

# The image's lock holds only what requirements.txt does not, so that the two are installed together.
COMPILE = .venv/bin/uv pip compile -q --python-version 3.11 --universal --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock"
lock: dev ## pin the requirements again; UPGRADE=-U takes newer releases
	@$(COMPILE) $(UPGRADE) requirements.in -o requirements.txt
	@$(COMPILE) $(UPGRADE) deploy/requirements.in -o deploy/requirements.txt \
		$$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.txt | sort -u)
	@$(COMPILE) $(UPGRADE) requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) $(UPGRADE) benchmarks/requirements.in -o benchmarks/requirements.txt \
		$$(sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.txt | sort -u)
	@$(COMPILE) $(UPGRADE) benchmarks/anonymity.in -o benchmarks/anonymity.txt

clean: ## remove caches; .venv and var/ stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

runtime:
	@bin/bootstrap

dev:
	@bin/bootstrap --dev
