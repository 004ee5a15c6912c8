# The same steps without make are in README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv check security test walks fuzz-api openapi demo demo-reset run bench agent lock coverage-map golden torture

help:
	@echo "make demo        everything with a simulated environment, at http://127.0.0.1:8000/ (RUNBOOK_PORT)"
	@echo "make demo-reset  the same, begun anew: earlier data is thrown away"
	@echo "make run         the application alone, for an environment of your own"
	@echo "make check       format, rules, types, import contracts, migrations, templates"
	@echo "make openapi     docs/openapi.json anew: what the API offers"
	@echo "make security    bandit, dist/sbom.json (CycloneDX), and known holes of the pinned packages"
	@echo "make test        the whole test suite on a real PostgreSQL and Redis"
	@echo "make walks       10,000 random walks through every procedure (RUNS=…), or one again (SEED=…)"
	@echo "make fuzz-api    20,000 generated requests, good, bad and spoiled, in ten minutes at most (REQUESTS=, LIMIT=, SEED=)"
	@echo "make coverage-map  docs/requirements.md anew: what is demanded, what answers to it, what proves it"
	@echo "make golden      histories of this release, replayed by every later one (docs/operation.md)"
	@echo "make bench       the benchmark"
	@echo "make torture     a kill at every crash point and every fault under load (SEED=, ROUNDS=, PARTS=)"
	@echo "make agent       dist/runbook-agent.pyz, the one file to copy to a host"
	@echo "make lock        pins the requirements anew"

venv: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Runbook needs Python 3.11 or later. Name it, as: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python cannot make virtual environments here. On Debian: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.txt
	touch $@

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy runbook upgrades agent simulator
	$(BIN)/mypy --config-file tests/mypy.ini --cache-dir .mypy_cache/tests tests
	$(BIN)/lint-imports
	$(BIN)/vermin --target=3.6- --violations --no-tips agent
	$(BIN)/vermin --target=3.8- --violations --no-tips verifier
	DJANGO_SETTINGS_MODULE=runbook.check_settings $(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/djlint templates --lint --quiet
	$(BIN)/python -m tests.static_findings

security: venv
	$(BIN)/python -m tests.static_findings
	$(BIN)/python -m tests.dependencies sbom dist/sbom.json
	$(BIN)/python -m tests.dependencies audit

test: venv
	$(BIN)/python -m pytest $(ARGS)

# Each walk is made by its seed alone; a red one prints the line that repeats it and leaves its history in var/walks.
walks: venv
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--runs $(or $(RUNS),10000)) $(ARGS)

# The same requests come again with the same seed; a red one lists what was sent and what was answered.
fuzz-api: venv
	@REQUESTS=$(or $(REQUESTS),20000) LIMIT=$(or $(LIMIT),540) SEED=$(or $(SEED),1) $(BIN)/python -m pytest -q --tb=short --show-capture=no tests/api/fuzz.py $(ARGS)

coverage-map: venv
	$(BIN)/python -m tests.coverage_map

openapi: venv
	$(BIN)/python -m runbook.openapi docs/openapi.json

demo: venv
	@exec $(BIN)/python -m runbook.demo

demo-reset: venv
	@exec $(BIN)/python -m runbook.demo --reset

run: venv
	@exec $(BIN)/python -m runbook.demo --plain

bench: venv
	@exec $(BIN)/python -m runbook.demo --manage bench $(ARGS)

torture: venv
	@SEED=$(SEED) ROUNDS=$(ROUNDS) PARTS=$(PARTS) ONLY='$(ONLY)' $(BIN)/python -m tests.torture

agent: venv
	rm -rf dist/agent && mkdir -p dist/agent && cp agent/*.py dist/agent/
	$(BIN)/python -m zipapp dist/agent --output dist/runbook-agent.pyz --python "/usr/bin/env python3"
	rm -r dist/agent

lock: venv
	$(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --upgrade requirements.in -o requirements.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --upgrade -c requirements.txt requirements-dev.in -o requirements-dev.txt

golden: venv
	$(BIN)/python -m tests.golden.write
