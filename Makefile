# make demo        a small experiment on real data, from nothing but Python 3.11 and pip
# make test        all tests, with coverage
# make test-part   of the tests what may come out differently on another Python
# make check       format, lint, types, layering
# make dist        source archive and wheel in dist/, checked
# make clean       remove what these made

PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first Python has .venv. Another one that PYTHON names has one of its own (.venv-3.12), so that
# nothing is installed again when they take turns. Another patch of the same: make it again.
VENV := .venv
IDENTITY := import sys; print("%d.%d %d" % sys.version_info[:3], sys.base_prefix)
ifneq ($(PYTHON),)
ASKED := $(shell "$(PYTHON)" -c '$(IDENTITY)' 2>/dev/null)
FIRST := $(shell .venv/bin/python -c '$(IDENTITY)' 2>/dev/null)
ifneq ($(firstword $(FIRST) $(ASKED)),$(firstword $(ASKED)))
VENV := .venv-$(firstword $(ASKED))
endif
ifneq ($(shell $(VENV)/bin/python -c '$(IDENTITY)' 2>/dev/null),$(ASKED))
ANEW := FORCE
endif
endif
BIN := $(VENV)/bin
EXAMPLE := examples/experiment_2025-10-14.py
OUTPUT := data/outputs/pilot_experiment
HALF := tests/failures tests/core tests/engines tests/workers tests/system tests/nodes tests/page tests/web
COVERAGE_REPORT = $(BIN)/python tools/combine_coverage.py && $(BIN)/coverage report || status=1
# What may differ between Pythons, in about two minutes on two idle cores: how interpreters start, import, fork,
# pickle, trace and end, and what the standard library answers. Nothing that measures time, and nothing that is
# the same in every Python: histories, bytes on a disk, many kills.
PART := tests/workers tests/engines/test_local_engine.py tests/engines/test_zygote_process.py \
  tests/experiment/test_planning.py tests/whole/test_notebook.py tests/test_dist.py \
  tests/real_scripts/test_between_jobs.py tests/real_scripts/test_exit_functions.py \
  tests/real_scripts/test_main_module.py tests/real_scripts/test_sent_by_value.py \
  tests/real_scripts/test_shared_memory.py tests/real_scripts/test_stacks.py \
  tests/real_scripts/test_streams_between_jobs.py tests/real_scripts/test_ways_to_start.py \
  tests/real_scripts/test_interpreter.py::test_options_of_the_interpreter_are_those_of_the_script

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-part check dist clean FORCE

help:
	@echo 'make demo    run the example experiment on real data, then resume it for the rest of its tasks'
	@echo 'make test    run all tests and print what they cover   (ARGS="-k journal" for some of them)'
	@echo 'make test-part   of them what may come out differently on another Python'
	@echo 'make check   formatting, lint, types, layering'
	@echo 'make dist    build the source archive and the wheel in dist/, and check them'
	@echo 'make clean   remove the virtual environment, dist/ and caches; results under data/outputs stay'
	@echo
	@echo 'PYTHON=/path/to/python3.12 chooses the interpreter; 3.11 or newer is needed.'

demo: $(VENV)/.demo
	@echo '== a pilot: one task of each domain'
	$(BIN)/python $(EXAMPLE) $(ARGS)
	@echo
	@echo '== the rest: the same experiment, resumed'
	$(BIN)/python $(EXAMPLE) --resume latest --all-tasks
	@echo
	@echo 'The results are here:'
	@ls -td $(CURDIR)/$(OUTPUT)/*/logs_final.json | head -n 1
	@ls -td $(CURDIR)/$(OUTPUT)/*/statistics.json | head -n 1
	@echo 'Look at them with the command longhaul:'
	@echo '  $(BIN)/longhaul results $(notdir $(OUTPUT)) --columns job,mean,seconds --sort mean --reverse'
	@echo '  $(BIN)/longhaul web     (in a browser; so it is while an experiment runs)'
	@echo 'After ". $(BIN)/activate" it is found by its name, in this shell.'

# Two halves of about the same length side by side: simulated histories, real processes, what must be survived,
# hosts and browsers; and all the others, whose output is shown when both are over.
# With ARGS, what these choose, in one process.
test: $(VENV)/.dev
	@$(BIN)/coverage erase
ifdef ARGS
	@status=0; $(BIN)/coverage run -m pytest $(ARGS) || status=$$?; $(COVERAGE_REPORT); exit $$status
else
	@status=0; \
	$(BIN)/coverage run -m pytest $(HALF:%=--ignore=%) > $(VENV)/tests.log 2>&1 & others=$$!; \
	$(BIN)/coverage run -m pytest $(HALF) || status=$$?; \
	echo 'waiting for the other tests'; wait $$others || status=$$?; cat $(VENV)/tests.log; \
	$(COVERAGE_REPORT); exit $$status
endif

test-part: $(VENV)/.dev
	$(BIN)/python -m pytest -q $(or $(ARGS),$(PART))

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py
	@if command -v node >/dev/null; then \
	  for file in supervisor/page/assets/*.mjs supervisor/web/assets/*.mjs; do node --check "$$file" || exit 1; done; \
	else echo 'node is not installed: the scripts of pages are not checked'; fi

# The wheel is built from the source archive. What an earlier build left behind goes first: setuptools
# would pack modules that have been removed since, from build/ and from the list of files in *.egg-info.
dist: $(VENV)/.dev
	rm -rf build dist *.egg-info
	$(BIN)/python -m build
	rm -rf build *.egg-info
	$(BIN)/python -m twine check --strict dist/*
	@ls -l dist

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	find supervisor workers tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again only when pyproject.toml has changed.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml $(ANEW) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/python: $(ANEW)
	@for python in $(PYTHONS); do \
	  if "$$python" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "$$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo 'longhaul needs Python 3.11 or newer; none of these is: $(PYTHONS)' >&2; \
	echo 'Install one, or name it: make PYTHON=/path/to/python3.12 ...' >&2; \
	exit 1
