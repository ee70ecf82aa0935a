# Everything a checkout needs. Only make and a Python 3.11 or later have to be there; all else lands in .venv.
#
#   make test PYTHON=/usr/bin/python3.12    names the Python to use
#   make test WORKERS=2                     runs the tests in so many processes instead of four
#   make lock UPGRADE=1                     moves the locks to the newest versions that fit

PYTHON = python3 python3.14 python3.13 python3.12 python3.11 python
# Tests wait for sockets and other processes half of their time: two for each of two cores.
WORKERS = 4
PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check

# The tests start hundreds of processes. Without compiled files each of them compiles all of kimi-mcp anew.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: help demo test soak lint format bench docs bundle lock clean

help:
	@echo "make demo     set up what kimi-mcp runs on, then show every tool at work: no key, no network"
	@echo "make test     set up everything, then run the tests, but for those that are marked soak"
	@echo "make soak     run the tests that are marked soak: thousands of rounds, kills, other programs"
	@echo "make lint     ruff, pyright, import levels, and whether generated files are up to date"
	@echo "make format   let ruff fix what it can"
	@echo "make bench    run the benchmarks"
	@echo "make docs     build the documentation as a site in build/docs, links checked"
	@echo "make bundle   pack dist/kimi-mcp-VERSION.mcpb, for hosts that install with a click"
	@echo "make lock     write requirements/*.txt anew from pyproject.toml"
	@echo "make clean    remove .venv and what the tools left behind"

demo: .venv/.runtime
	@.venv/bin/kimi-mcp demo

test: .venv/.dev
	@echo "Running the tests"
	@.venv/bin/python -m pytest -q -m "not soak" -n $(WORKERS) --dist worksteal

soak: .venv/.dev
	@echo "Running the soak tests"
	@.venv/bin/python -m pytest -q -m soak

lint: .venv/.dev
	@echo "Checking style, types, imports and generated files"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python -m scripts.generate --check

format: .venv/.dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

bench: .venv/.dev
	@.venv/bin/python -m benchmarks

docs: .venv/.docs
	@.venv/bin/sphinx-build --quiet --fail-on-warning --keep-going -b html docs build/docs
	@echo "The documentation: build/docs/index.html"

bundle: .venv/.runtime
	@.venv/bin/python -m scripts.manifests.bundle

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------- set-up

# Each of these files says that a step is done; a changed lock or pyproject.toml makes it due again.

.venv/.runtime: .venv/.python requirements/runtime.txt pyproject.toml
	@echo "Installing what kimi-mcp runs on into .venv"
	@$(call install,requirements/runtime.txt)
	@touch $@

.venv/.dev: .venv/.python requirements/dev.txt pyproject.toml
	@echo "Installing what kimi-mcp and its tests and checks run on into .venv"
	@$(call install,requirements/dev.txt)
	@touch $@

.venv/.docs: .venv/.python requirements/docs.txt
	@echo "Installing what builds the documentation into .venv"
	@$(PIP) install --require-hashes -r requirements/docs.txt
	@touch $@

# First the lock, each file held against its hash; then the checkout itself, which fetches nothing.
# To pip a package that was half installed when someone pulled the plug looks whole. .venv/.unfinished is left
# behind then, and the next run installs every package again.
install = \
	again=; if [ -e .venv/.unfinished ]; then again=--ignore-installed; fi; \
	touch .venv/.unfinished && \
	$(PIP) install $$again --require-hashes -r $(1) && \
	$(PIP) install --no-deps --no-build-isolation --editable . && \
	rm .venv/.unfinished

# .venv/.python holds the folder that .venv was made in: where the checkout has moved since, or the Python behind
# .venv is gone, this step is due however new that file is.
ifneq ($(shell test -x .venv/bin/python && cat .venv/.python 2>/dev/null),$(CURDIR))
.PHONY: .venv/.python
endif

NEW_ENOUGH = import sys; sys.version_info >= (3, 11) or sys.exit(1)

# A .venv that works is kept, unless it was made elsewhere. Else the first Python that is new enough and has venv
# makes one.
.venv/.python:
	@if [ "$$(cat $@ 2>/dev/null || pwd -P)" != "$$(pwd -P)" ] || \
	    ! .venv/bin/python -c "$(NEW_ENOUGH); import pip" 2>/dev/null; then \
	    for python in $(PYTHON) none; do \
	        "$$python" -c "$(NEW_ENOUGH); import ensurepip, venv" 2>/dev/null && break; \
	    done; \
	    if [ "$$python" = none ]; then $(say_what_is_missing); exit 1; fi; \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv || exit 1; \
	fi
	@pwd -P > $@

say_what_is_missing = \
	for python in $(PYTHON); do \
	    if "$$python" -c "$(NEW_ENOUGH)" 2>/dev/null; then \
	        echo "$$("$$python" --version) ($$python) comes without venv. Debian and Ubuntu have it in a package of" \
	            "its own: sudo apt install python3-venv. Then run make again." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "kimi-mcp needs Python 3.11 or later; none of these is one: $(PYTHON). Install one, or name the one to" \
	    "use: make PYTHON=/path/to/python3." >&2

# ---------------------------------------------------------------------------------------------------- locks

# uv makes the locks, in a folder that is gone afterwards; nobody needs it to install them. What this machine knows
# of other indexes stays out, and no address is written down: the hashes say what a file must be, wherever it is from.
COMPILE = env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS "$$uv/bin/uv" pip compile --no-config --quiet \
	$(if $(UPGRADE),--upgrade) --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

lock: .venv/.python
	@echo "Locking what pyproject.toml asks for"
	@uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && .venv/bin/python -m venv "$$uv" && \
	"$$uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.13,<0.14" && \
	$(COMPILE) pyproject.toml --group build -o requirements/runtime.txt && \
	$(COMPILE) pyproject.toml --group dev -c requirements/runtime.txt -o requirements/dev.txt && \
	$(COMPILE) --group docs -c requirements/dev.txt -o requirements/docs.txt
