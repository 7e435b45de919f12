# make demo        a small experiment on real data, from nothing but Python 3.11 and pip
# make test-quick  the inner loop: what needs no process, in under a minute
# make test        what has to pass before a change goes in, in about ten minutes
# make test-part   of the tests what may come out differently on another Python
# make test-ray    the tests that need a Ray cluster
# make test-all    before a release: all of this and what is exhaustive, on each Python that is installed
# make coverage    make test again, measured, and the table of what it covers
# make check       format, lint, types, layering, the documentation site
# make docs        the documentation site in site/
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
# The rooms of tests in parts of about the same length: more than a machine has cores, because most tests wait about
# as long as they compute. What no part names runs in the first one.
SPLIT := WHOLE FAILURES NODES DOCS
WHOLE := tests/whole tests/experiment tests/control tests/tools
FAILURES := tests/failures tests/storage tests/commands
NODES := tests/nodes tests/engines tests/workers tests/core
DOCS := tests/docs tests/web tests/page tests/exec
OTHERS := $(foreach part,$(SPLIT),$($(part):%=--ignore=%))
# Of these rooms what is not marked as slow: decisions, formats, texts, in under a minute on an idle core.
QUICK := tests/test_layering.py tests/core tests/control tests/options tests/reports tests/storage tests/views \
  tests/system tests/commands tests/page tests/nodes tests/docs/test_links.py
# Many more cases of a kind of which make test has some: `make test CHOICE=` runs them as well.
CHOICE := -m 'not exhaustive'
# What may differ between Pythons, in about a minute on two idle cores: how interpreters start, import, fork,
# pickle, trace and end, and what the standard library answers. Nothing that measures time, and nothing that is
# the same in every Python: histories, bytes on a disk, many kills.
PART := tests/workers tests/engines/test_local_engine.py tests/engines/test_zygote_process.py \
  tests/experiment/test_planning.py tests/whole/test_notebook.py tests/test_dist.py
PART_OF_SCRIPTS := tests/real_scripts/test_between_jobs.py tests/real_scripts/test_exit_functions.py \
  tests/real_scripts/test_main_module.py tests/real_scripts/test_sent_by_value.py \
  tests/real_scripts/test_shared_memory.py tests/real_scripts/test_stacks.py \
  tests/real_scripts/test_streams_between_jobs.py tests/real_scripts/test_ways_to_start.py \
  tests/real_scripts/test_interpreter.py::test_options_of_the_interpreter_are_those_of_the_script

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-quick test-part test-ray test-all coverage check docs dist clean FORCE

help:
	@echo 'make demo    run the example experiment on real data, then resume it for the rest of its tasks'
	@echo 'make test    run the tests   (ARGS="-k journal" for some of them, CHOICE= for the exhaustive ones as well)'
	@echo 'make test-quick  of them what takes less than a minute'
	@echo 'make test-part   of them what may come out differently on another Python'
	@echo 'make test-ray    of them what needs a Ray cluster, which is installed for it into .venv-ray'
	@echo 'make test-all    before a release: all of them and the exhaustive ones, on each Python that is installed'
	@echo 'make coverage    run the tests and print what they cover, which takes longer'
	@echo 'make check   formatting, lint, types, layering, the documentation site'
	@echo 'make docs    build the documentation site in site/: open site/index.html'
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

# Runs these parts of the tests side by side, with words for all of them. With ARGS, what these choose, in one process.
define run_tests
$(if $(ARGS),$(BIN)/$(if $(1),coverage run,python) -m pytest $(CHOICE) $(ARGS), \
  $(BIN)/python tools/run_tests.py $(1) $(CHOICE) $(3) -- $(foreach part,$(2),'$(part) $($(part))'))
endef

test: $(VENV)/.dev
	$(call run_tests,,OTHERS $(SPLIT))

# Not part of make test: being measured costs half as much again to twice as much, and nothing checks the figures.
coverage: $(VENV)/.dev
	@$(BIN)/coverage erase
	@status=0; $(call run_tests,--coverage,OTHERS $(SPLIT)) || status=$$?; \
	  $(BIN)/python tools/combine_coverage.py && $(BIN)/coverage report || status=1; exit $$status

test-quick: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m 'not slow and not exhaustive and not needs_ray' $(or $(ARGS),$(QUICK))

test-part: $(VENV)/.test-part
	$(call run_tests,,PART PART_OF_SCRIPTS,-q)

# In a virtual environment of its own: Ray brings much along, and `make test` has to pass without it.
test-ray:
	@$(MAKE) --no-print-directory VENV=.venv-ray EXTRAS=dev,ray .venv-ray/.dev
	.venv-ray/bin/python -m pytest -q -m needs_ray $(ARGS)

test-all:
	.ci/run --all

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py
	@if command -v node >/dev/null; then \
	  for file in supervisor/page/assets/*.mjs supervisor/web/assets/*.mjs; do node --check "$$file" || exit 1; done; \
	else echo 'node is not installed: the scripts of pages are not checked'; fi
	@$(MAKE) --no-print-directory docs

# Any warning (a link that leads nowhere, a page that is not in the menu) is an error.
# The variable: the theme says at each start that it does not work with mkdocs 2, which it does not allow either.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The wheel is built from the source archive. What an earlier build left behind goes first: setuptools
# would pack modules that have been removed since, from build/ and from the list of files in *.egg-info.
dist: $(VENV)/.dev
	rm -rf build dist *.egg-info
	$(BIN)/python -m build
	rm -rf build *.egg-info
	$(BIN)/python -m twine check --strict dist/*
	@ls -l dist

clean:
	rm -rf .venv .venv-* build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	find supervisor workers tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed again only when pyproject.toml has changed.
$(VENV)/.demo $(VENV)/.dev $(VENV)/.test-part: $(VENV)/.%: pyproject.toml $(ANEW) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(or $(EXTRAS),$*)]'
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
