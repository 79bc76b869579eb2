# SimpleNet Edge: `make` lists the commands. Works with GNU make 3.81 and newer.

# Candidates; the first that is Python 3.10 to 3.12 and has venv is used. To name one: make PYTHON=/opt/bin/python3.12
PYTHON ?= python3.12 python3.11 python3.10 python3
# Arguments for the command: make compare ARGS="--variant 1.5m"
ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
LIVE_TOOLS := chromium Xvfb xdotool
INSTALL := $(RUN) -m pip install --constraint constraints.txt --editable
# A process per core, at most four, because each may hold 1.5 GB; make test ARGS=--numprocesses=0 runs all in one.
PYTEST := $(RUN) -m pytest --benchmark-disable --numprocesses logical --maxprocesses 4 --dist worksteal
SUPPORTED := import sys; assert (3, 10) <= sys.version_info < (3, 13)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help compare test test-fast test-live lint bench web images format setup setup-dev setup-live clean distclean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Arguments:                    make compare ARGS="--variant 1.5m"    make test ARGS="-k preprocessing"'
	@echo 'Another Python (3.10-3.12):   make compare PYTHON=/path/to/python3.12'
	@echo 'The first command creates $(VENV). On Linux without an NVIDIA GPU, the CPU build of PyTorch saves gigabytes:'
	@echo '  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make compare'

compare: setup ## export the shipped model for every backend, measure it, print the table, write a report
	$(RUN) demos/compare.py --report comparison.html $(ARGS)

# Window tests run alone: on a busy machine a virtual screen can stay black.
test: setup-dev ## run the test suite (each benchmark once, untimed)
	$(RUN) -m pytest -m window tests/demos/live/window
	$(PYTEST) -m "not window" $(ARGS)

test-fast: setup-dev ## only what takes seconds: no browser, window or benchmark, no test above three seconds
	$(PYTEST) --ignore=tests/benchmarks -m "not slow and not browser and not window" $(ARGS)

test-live: setup-live ## run the tests with a real window and browser; installs chromium, xvfb, xdotool with apt-get
	$(RUN) -m pytest -m "browser or window" $(ARGS)

lint: setup-dev ## check style (ruff) and types (mypy)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: setup-dev ## time the parts: pytest-benchmark over tests/benchmarks
	$(RUN) -m pytest tests/benchmarks --benchmark-only $(ARGS)

web: setup ## download onnxruntime-web from npm, to run the model in the browser
	$(RUN) demos/live/browser/onnxruntime_web.py $(ARGS)

images: setup-live ## make the screenshots in docs/images again
	$(RUN) docs/make_images.py $(ARGS)

format: setup-dev ## rewrite the code in the project's style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# Without these programs, `make test` skips the tests with a window or a browser, and prints the reason.
setup-live: setup-dev web
	@for command in $(LIVE_TOOLS); do command -v $$command >/dev/null || missing="$$missing $$command"; done; \
	if test -z "$$missing"; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "error: the tests need$$missing; install them with your package manager" >&2; exit 1; \
	fi; \
	if test "$$(id -u)" = 0; then as_root=; else as_root=sudo; fi; \
	$$as_root apt-get update -qq && $$as_root apt-get install --yes --no-install-recommends -qq chromium xvfb xdotool

setup: $(VENV)/.ready ## create .venv with what the scripts need
setup-dev: $(VENV)/.ready-dev ## ... and with the developers' tools

clean: ## remove caches and build output; keeps artifacts/, runs/, data/ and onnxruntime-web
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -path './$(VENV)' -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## ... and .venv
	rm -rf $(VENV)

# The stamp is removed first and created last, so that an interrupted setup starts again.
$(VENV)/.ready: pyproject.toml constraints.txt
	@rm -f $@
	@$(make_venv)
	$(INSTALL) '.[all]'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@rm -f $@
	$(INSTALL) '.[dev]'
	$(RUN) -m pip install --no-deps pytorchcv==0.0.74  # its dependency torchvision would replace the CPU build of torch
	@touch $@

# venv installs pip last: an environment without it was interrupted.
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
