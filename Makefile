# Tallystick's front door. `make` alone lists what there is; the work is in scripts/.

PYTHON ?= python3
BIN    := .venv/bin
SETUP  := PYTHON='$(PYTHON)' sh scripts/python.sh -m scripts.setup

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup-demo ## run the whole story on this machine; ONCE=1 leaves after it
	@$(BIN)/tallystick demo $(if $(ONCE),--once)

.PHONY: run
run: setup-demo ## start the service with development settings on 127.0.0.1
	@sh scripts/run.sh

.PHONY: test
test: setup-test ## run every test; PYTEST='tests/unit -k tiles' runs some
	@# One more than there are processors: half of the suite waits for processes, files and sockets of its own.
	@# Hundreds of them start: none is to compile its modules anew.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n "$$(( $$(nproc) + 1 ))" --dist worksteal $(PYTEST)

.PHONY: lint
lint: setup-lint ## check layout, style, types, import direction, spelling, the repository
	@sh scripts/lint.sh

.PHONY: fmt
fmt: setup-lint ## lay out the code and repair what can be repaired
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: interop
interop: setup-lint ## verify a log of ours with public Go tools; a stock OPA decides by our bundle
	@sh scripts/interop.sh

.PHONY: bench
bench: setup-test ## measure; BENCH=full has no time limit
	@$(BIN)/python -m benchmarks.run $(if $(filter full,$(BENCH)),--full)

.PHONY: lock
lock: ## pin the requirements anew; UPGRADE=1 takes newer versions
	@PYTHON='$(PYTHON)' UPGRADE='$(UPGRADE)' sh scripts/lock.sh

.PHONY: setup-demo setup-lint setup-test
setup-demo: ## set up what demo and run need
	@$(SETUP) demo
setup-lint: ## set up what lint, fmt and interop need
	@$(SETUP) lint
setup-test: ## set up what test and bench need
	@$(SETUP) test

.PHONY: clean
clean: ## remove all that these targets made: environment, caches, demo and run data
	rm -rf .venv .cache .demo build dist htmlcov .coverage* .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -rf benchmarks/out tests/interop/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
