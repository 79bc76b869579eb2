# SimpleNet Edge: `make` lists the commands. Works with GNU make 3.81 and newer.

# The first of these that is Python 3.10 to 3.12 and can make virtual environments; or name one: make PYTHON=/opt/bin/python3.12
PYTHON ?= python3.12 python3.11 python3.10 python3
# More arguments for the command: make compare ARGS="--variant 1.5m"
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
LIVE_TOOLS := chromium Xvfb xdotool
INSTALL := $(RUN) -m pip install --constraint constraints.txt --editable
SUPPORTED := import sys; assert (3, 10) <= sys.version_info < (3, 13)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help compare test test-live lint bench web images format setup setup-dev setup-live clean distclean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'More arguments go into ARGS:  make compare ARGS="--variant 1.5m"    make test ARGS="-k preprocessing"'
	@echo 'Another Python (3.10-3.12):   make compare PYTHON=/path/to/python3.12'
	@echo 'The first command sets up $(VENV). pip obeys its PIP_* variables: on Linux without an NVIDIA GPU, PyTorch'
	@echo 'without CUDA saves gigabytes:  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make compare'

compare: setup ## export the shipped model everywhere, measure it, print the table
	$(RUN) demos/compare.py $(ARGS)

test: setup-dev ## run the test suite (each benchmark once, untimed)
	$(RUN) -m pytest --benchmark-disable $(ARGS)

test-live: setup-live ## only the tests with a real window and a real browser, with what they need from Debian
	$(RUN) -m pytest -m "browser or window" $(ARGS)

lint: setup-dev ## check style (ruff) and types (mypy)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: setup-dev ## time the parts: pytest-benchmark over tests/benchmarks
	$(RUN) -m pytest tests/benchmarks --benchmark-only $(ARGS)

web: setup ## fetch onnxruntime-web from npm: the live page then also runs the model in the browser
	$(RUN) demos/live/browser/onnxruntime_web.py $(ARGS)

images: setup-live ## make the screenshots in docs/images again, with a real browser and a virtual screen
	$(RUN) docs/make_images.py $(ARGS)

format: setup-dev ## rewrite the code in the project's style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# In `make test`, the tests with a window and a browser are skipped, with their reason, where these are not installed.
setup-live: setup-dev web
	@for command in $(LIVE_TOOLS); do command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	if test -z "$$missing"; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "error: install these with your package manager, the tests use them:$$missing" >&2; exit 1; \
	fi; \
	if test "$$(id -u)" = 0; then as_root=; else as_root=sudo; fi; \
	$$as_root apt-get update -qq && $$as_root apt-get install --yes --no-install-recommends -qq chromium xvfb xdotool

setup: $(VENV)/.ready ## only set up what the scripts need
setup-dev: $(VENV)/.ready-dev ## ... and the developers' tools

clean: ## remove caches and build leftovers; artifacts/, runs/, data/ and what make web fetched stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -path './$(VENV)' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## ... and .venv
	rm -rf $(VENV)

# A stamp goes first and comes back last: a set-up that was interrupted starts again.
$(VENV)/.ready: pyproject.toml constraints.txt
	@rm -f $@
	@$(make_venv)
	$(INSTALL) '.[all]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@rm -f $@
	$(INSTALL) '.[dev]'
	@touch $@

# pip's own script is the last thing that a new environment gets: without it, the making was interrupted.
define make_venv
if test -x $(VENV)/bin/pip && $(RUN) -c '$(SUPPORTED)' 2>/dev/null; then exit 0; fi; \
incomplete=; \
for python in $(PYTHON); do \
  $$python -c '$(SUPPORTED)' 2>/dev/null || continue; \
  if $$python -c 'import ensurepip, venv' 2>/dev/null; then \
    echo "Setting up $(VENV) with $$($$python --version), once; without an NVIDIA GPU, see 'make help' for the small PyTorch"; \
    $$python -m venv --clear $(VENV); exit; \
  fi; \
  incomplete="$$incomplete $$python"; \
done; \
if test -n "$$incomplete"; then \
  echo "error: these cannot make virtual environments:$$incomplete; on Debian and Ubuntu: sudo apt install python3-venv" >&2; \
else \
  echo "error: no Python 3.10, 3.11 or 3.12 among: $(PYTHON); install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
fi; exit 1
endef
