# `make demo` and `make test` set up .venv by themselves, with $(PYTHON) 3.10 or later.
# A comment after a target's name is its line of `make help`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
SHEET := out/sheet.png

.DEFAULT_GOAL := help

# The models are small: on an idle machine more threads gain little, beside other work they cost several times the time.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo bench test clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' $(firstword $(MAKEFILE_LIST)) | awk -F ': ' '{ printf "make %-6s %s\n", $$1, $$2 }'

demo: $(VENV)/demo.stamp ## make pictures of one prompt with and without AsynDM, on a sheet in out/
	$(BIN)/python -m asyndm_lib generate "a cat and a basketball" --targets cat,basketball \
		--sampler "DPM++ 2M" --steps 30 --seed 1 --out $(SHEET)
	@echo
	@echo "Now open $(SHEET). Three pictures of the same prompt and seed: the ordinary one, one with every pixel"
	@echo "slowed, and AsynDM. Below them, step by step, the mask: in colour is what lags, which should be the cat and"
	@echo "the basketball. Under it: how far each pixel is; what lags is behind the rest, and catches up at the end."
	@echo 'Other words: $(BIN)/python -m asyndm_lib generate "a fox and a guitar" --out out/mine.png'

bench: $(VENV)/demo.stamp ## measure what AsynDM costs in time and memory
	$(BIN)/python -m asyndm_lib bench

test: $(VENV)/test.stamp ## run the linter, the type check and all tests (with ASYNDM_WEBUI=FOLDER on that WebUI too)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -ra
	@if command -v node > /dev/null; then node --test tests/javascript/; \
	else echo "The tests of the page's JavaScript were skipped: node is not installed"; fi

# With a real WebUI at hand its suite runs too; its page tests drive a browser.
ifdef ASYNDM_WEBUI
test: $(VENV)/host.stamp
endif

clean: ## remove .venv and out/
	rm -rf $(VENV) out

# The stamps are older than a requirements file that has changed.
$(VENV)/demo.stamp: requirements-demo.txt requirements-demo-nodeps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.11")'
	@echo "This sets up $(VENV) with about 5 GB of packages from PyPI: PyTorch, of which the CUDA libraries are most,"
	@echo "transformers, k-diffusion and what they need. The models that are drawn with are in this repository."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements-demo.txt
	$(INSTALL) --no-deps -r requirements-demo-nodeps.txt
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp requirements-test.txt
	$(INSTALL) -r requirements-test.txt
	@touch $@

$(VENV)/host.stamp: $(VENV)/test.stamp tests/host/requirements-host.txt
	$(INSTALL) -r tests/host/requirements-host.txt
	@touch $@
