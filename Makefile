# The dialer's verbs. `make` alone lists them; each one checks first what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
LOCK_PYTHON := 3.11
RUN_DEMO := run/demo
RUN_KILL := run/demo-kill
RUN_QUICK := run/demo-quick
RUN_PROVE := run/prove
# How much is proven: more overnight (make sim SEEDS=100000, make prove CALLS=10000).
SEEDS ?= 2000
CALLS ?= 500
PROVE = $(PY) -m rehearsal prove --calls $(CALLS) --run-dir $(RUN_PROVE)
# When make was called: the demo measures the time to the first ring from here.
BEGAN_AT := $(shell date +%s.%N)

.DEFAULT_GOAL := help
.PHONY: prove-ci help prerequisites setup provision check test e2e sim controls mutants prove bench bench-amd schemas demo demo-quick demo-kill up down status clean ci lock

help: ## list the verbs
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

prerequisites: ## what this machine lacks, and the line that installs it (2 s, downloads nothing)
	@$(PYTHON) -m rehearsal.prerequisites

setup: $(STAMP) ## the virtual environment, from the lock, hashes checked

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -m rehearsal.prerequisites
	@echo "installing into $(VENV) (once, about a minute)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

provision: prerequisites setup ## fetch Kafka, build livekit-server and fake-gcs-server into the cache, once (about 4 minutes)
	@$(PY) -m rehearsal provision

check: setup ## format, lint, types, and the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PY) -m pytest tests/house -m "not broker and not livekit and not slow"

test: provision ## every test but the slow ones, end to end ones, and those that need a container engine
	$(PY) -m pytest $(RERUNS) --durations 25 -m "not slow and not e2e and not docker"

e2e: provision ## the slow tests and the end to end ones: real broker, real livekit-server, real audio
	$(PY) -m pytest $(RERUNS) --durations 25 -m "(slow or e2e) and not docker"

sim: setup ## the dialer in a simulated world: SEEDS histories of crashes and faults, the promises checked after every step
	$(PY) -m tests.simulation --seeds $(SEEDS) --jobs 2

controls: setup ## the same harness against dialers broken on purpose: each must be caught
	$(PY) -m tests.controls

mutants: setup ## mutation testing of the core and the gate (long; goes on where it was stopped)
	$(PY) -m tests.mutants --jobs 2

prove: prerequisites setup ## CALLS calls on real Kafka and LiveKit while processes are killed and paused: none lost, none doubled
	@$(PROVE)

prove-ci: prerequisites setup
	@for try in 1 2 3; do \
		$(PROVE) && exit 0 || code=$$?; \
		test $$code -eq 4 || exit $$code; \
		echo "a figure was missed, no promise broken"; \
	done; exit 4

bench: provision ## measure, each figure beside its limit; run/bench.json
	$(PY) -m bench

bench-amd: provision ## who took the call: a corpus judged, beside LiveKit's own detection and a phrase list; real voicemails
	$(PY) -m bench.amd

schemas: setup ## make the JSON Schemas and AsyncAPI from the models
	$(PY) -m schemas.generate

demo: prerequisites setup ## campaigns from nothing on some seventy simulated phones, and the accounts of them (under 5 minutes)
	@$(PY) -m rehearsal demo --run-dir $(RUN_DEMO) --began-at $(BEGAN_AT)

demo-quick: prerequisites setup ## the same without those that converse (75 s)
	@$(PY) -m rehearsal demo --no-conversations --run-dir $(RUN_QUICK) --began-at $(BEGAN_AT)

demo-kill: prerequisites setup ## the same, the dialer killed by SIGKILL three times amid live calls
	@$(PY) -m rehearsal demo-kill --run-dir $(RUN_KILL) --began-at $(BEGAN_AT)

up: prerequisites setup ## start a rehearsal that stays, and print its addresses and a first command
	@$(PY) -m rehearsal up

down: ## stop it; its data is kept
	@test ! -x $(PY) || $(PY) -m rehearsal down

status: setup ## is it up, and where
	@$(PY) -m rehearsal status

clean: down ## stop it and delete everything that runs have left (run/); the cache and the environment stay
	rm -rf run

# A test on real servers is tried once more, and named at the end: one that needs it is to be mended, and stops nobody.
ci: RERUNS := -rR --server-reruns 1
ci: check test e2e sim prove-ci ## everything: what .ci/run calls

lock: setup ## write requirements.lock anew from pyproject.toml
	@# setuptools is what builds us: with it in the lock nothing is installed without a hash
	echo 'setuptools>=77' | $(BIN)/uv pip compile pyproject.toml - --extra dev --generate-hashes --no-emit-index-url --no-header --universal --python-version $(LOCK_PYTHON) --upgrade -o requirements.lock
