# make demo   the whole job on the bundled log, in a few minutes; prints where the report is
# make test   the tests
# make lint   ruff and pyright
# make test-beam  the tests of preparation on Apache Beam, in an environment of its own
# make clean  removes the environment and the caches, keeps runs/
#
# The first call installs into .venv. To choose the interpreter: make demo PYTHON=/path/to/python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
PYTHON :=
WORKDIR := runs/quickstart

.PHONY: demo test test-beam lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-run
	@$(BIN)/python -m diet_jax.main --config=configs/quickstart.py --workdir=$(WORKDIR)

test: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -n 2

test-beam: $(VENV)/.stamp-run
	$(BIN)/python -m venv .venv-beam
	.venv-beam/bin/python -m pip install --quiet --requirement tests/beam-requirements.txt
	.venv-beam/bin/python -m pytest tests/test_data_beam.py

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) .venv-beam build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps come last in their recipes, so that an interrupted installation is taken up again.
$(VENV)/.stamp-run: requirements.txt pyproject.toml
	@python=; bare=; \
	for p in $(or $(PYTHON),python3.11 python3.12 python3); do \
	    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    "$$p" -c 'import ensurepip, venv' 2>/dev/null && python=$$p && break; \
	    bare=$${bare:-$$p}; \
	done; \
	if [ -n "$$python" ]; then \
	    echo "Installing into $(VENV) with $$python: about 1.3 GB, a minute or two ..."; \
	    "$$python" -m venv $(VENV); \
	elif [ -n "$$bare" ]; then \
	    echo "error: $$bare cannot make virtual environments;" \
	        "cure on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; \
	else \
	    echo "error: no Python 3.11 or newer here; name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi
	@$(PIP) install --requirement requirements.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run
	@echo "Installing the tools for tests and lint ..."
	@$(PIP) install --editable '.[dev]'
	@touch $@
