# Sets up, tests and checks a checkout. It needs only make and Python 3.11 or later; all else is installed into .venv.
#
#   make test PYTHON=/usr/bin/python3.12    uses this Python
#   make test WORKERS=2                     runs the tests in two processes instead of four
#   make lock UPGRADE=1                     upgrades the locks to the newest versions that fit

PYTHON = python3 python3.14 python3.13 python3.12 python3.11 python
# Tests spend half of their time waiting for sockets and other processes: two workers per core, for two cores.
WORKERS = 4
# Environments of soak tests beside .venv, each with a lock of its name.
OTHERS = agents agents-adk agents-sdk1 deploy
PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check

# The tests start hundreds of processes. Without compiled files each would compile all of kimi-mcp again.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: help demo cluster test soak lint format bench docs bundle lock hosts-upgrade clean

help:
	@echo "make demo     install the runtime dependencies, then show every tool at work, without a key"
	@echo "make cluster  install the development tools, then run a swarm over three replicas, and kill one of them"
	@echo "make test     install the development tools, then run the tests, except those marked soak"
	@echo "make soak     run the tests marked soak: thousands of rounds, kills, other programs"
	@echo "make lint     check style, types, import levels, generated files, and the pages' lines and links"
	@echo "make format   format the code, and let ruff fix what it can"
	@echo "make bench    run the benchmarks"
	@echo "make docs     build the documentation as a site in build/docs, and check its links"
	@echo "make bundle   pack dist/kimi-mcp-VERSION.mcpb, for hosts that install bundles"
	@echo "make lock     update requirements/*.txt from pyproject.toml"
	@echo "make hosts-upgrade"
	@echo "              move the pinned hosts to their newest versions, and run their tests"
	@echo "make clean    remove .venv, build output and caches"

demo: .venv/.runtime
	@.venv/bin/kimi-mcp demo

cluster: .venv/.dev
	@.venv/bin/python -m scripts.cluster

test: .venv/.dev
	@echo "Running the tests"
	@.venv/bin/python -m pytest -q -m "not soak" -n $(WORKERS) --dist worksteal

soak: .venv/.dev .venv/.browser $(OTHERS:%=.venv/.%)
	@echo "Running the soak tests"
	@.venv/bin/python -m pytest -q -m soak

lint: .venv/.dev
	@echo "Checking style, types, imports and generated files"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 .venv/bin/pyright
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python -m scripts.generate --check
	@.venv/bin/python -m pytest -q tests/scripts/test_generate.py -k "a_page or a_document"

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

# What a newest version breaks shows in the tests that fail, and what can't be had in those that are skipped.
hosts-upgrade: .venv/.dev
	@echo "Moving the hosts of the soak tests to their newest versions"
	@.venv/bin/python -m tests.hosts.upgrade
	@$(UV) && $(COMPILE) --upgrade --group agents -o requirements/agents.txt && \
	$(COMPILE) --upgrade --group agents-adk -o requirements/agents-adk.txt && \
	$(COMPILE) --upgrade --group agents-sdk1 -o requirements/agents-sdk1.txt
	@$(MAKE) --no-print-directory .venv/.agents .venv/.agents-adk .venv/.agents-sdk1
	@.venv/bin/python -m pytest -q -m soak tests/hosts tests/cli/install tests/scripts

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------- set-up

# Each of these files marks a finished step; a change of a lock or of pyproject.toml repeats the step.

.venv/.runtime: .venv/.python requirements/runtime.txt pyproject.toml
	@echo "Installing the runtime dependencies into .venv"
	@$(call install,requirements/runtime.txt)
	@touch $@

.venv/.dev: .venv/.python requirements/dev.txt pyproject.toml
	@echo "Installing the runtime and development dependencies into .venv"
	@$(call install,requirements/dev.txt)
	@touch $@

.venv/.docs: .venv/.python requirements/docs.txt
	@echo "Installing the documentation tools into .venv"
	@$(PIP) install --require-hashes -r requirements/docs.txt
	@touch $@

# Environments for soak tests of programs whose dependencies are not ours: agent frameworks, validators. Where one
# can't be downloaded, its tests are skipped.
$(OTHERS:%=.venv/.%): .venv/.%: .venv/.python requirements/%.txt
	@echo "Installing requirements/$*.txt into .venv/$* for soak tests"
	@.venv/bin/python -m venv --clear .venv/$* && \
	.venv/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes \
	    -r requirements/$*.txt && touch $@ || echo "They can't be had: their tests are skipped."

# Chromium, for the tests of the page. Where there is none, root of a Debian gets the distribution's own; elsewhere its
# tests are skipped. scripts/view/chromium.py finds it.
.venv/.browser: .venv/.dev
	@if ! .venv/bin/python -m scripts.view.chromium && [ "$$(id -u)" = 0 ] && grep -qsx ID=debian /etc/os-release; then \
	    echo "Installing Chromium for soak tests"; \
	    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq --yes --no-install-recommends install \
	        chromium; } > .venv/browser.log 2>&1; \
	fi; \
	.venv/bin/python -m scripts.view.chromium && touch $@ || echo "Chromium can't be had: its tests are skipped."

# First the packages of the lock, with their hashes checked; then the checkout itself, which downloads nothing.
# pip takes a package for complete even if its installation was interrupted. In that case .venv/.unfinished remains,
# and the next run installs every package again.
install = \
	again=; if [ -e .venv/.unfinished ]; then again=--ignore-installed; fi; \
	touch .venv/.unfinished && \
	$(PIP) install $$again --require-hashes -r $(1) && \
	$(PIP) install --no-deps --no-build-isolation --editable . && \
	rm .venv/.unfinished

# .venv/.python contains the folder in which .venv was made. If the checkout has moved, or the Python of .venv is gone,
# this step runs again.
ifneq ($(shell test -x .venv/bin/python && cat .venv/.python 2>/dev/null),$(CURDIR))
.PHONY: .venv/.python
endif

NEW_ENOUGH = import sys; sys.version_info >= (3, 11) or sys.exit(1)

# A working .venv is kept, unless it was made elsewhere. Otherwise the first Python that is new enough and has venv
# makes one.
.venv/.python:
	@if [ "$$(cat $@ 2>/dev/null || pwd -P)" != "$$(pwd -P)" ] || \
	    ! .venv/bin/python -c "$(NEW_ENOUGH); import pip" 2>/dev/null; then \
	    for python in $(PYTHON) none; do \
	        "$$python" -c "$(NEW_ENOUGH); import ensurepip, venv" 2>/dev/null && break; \
	    done; \
	    if [ "$$python" = none ]; then $(report_missing_python); exit 1; fi; \
	    echo "Making .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv || exit 1; \
	fi
	@pwd -P > $@

report_missing_python = \
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

# uv makes the locks, in a temporary folder; installing does not need it. Package indexes configured on this machine are
# ignored, and no address is written: the hashes identify a file, wherever it comes from.
COMPILE = env -u UV_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS "$$uv/bin/uv" pip compile --no-config --quiet \
	$(if $(UPGRADE),--upgrade) --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

UV = uv=$$(mktemp -d) && trap 'rm -rf "$$uv"' EXIT && .venv/bin/python -m venv "$$uv" && \
	"$$uv/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.13,<0.14"

lock: .venv/.python
	@echo "Locking the dependencies of pyproject.toml"
	@$(UV) && \
	$(COMPILE) pyproject.toml --group build -o requirements/runtime.txt && \
	$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/runtime.txt -o requirements/dev.txt && \
	$(COMPILE) pyproject.toml --all-extras -c requirements/dev.txt -o requirements/server.txt && \
	$(COMPILE) --group build -c requirements/dev.txt -o requirements/build.txt && \
	$(COMPILE) --group docs -c requirements/dev.txt -o requirements/docs.txt && \
	$(COMPILE) --group agents -o requirements/agents.txt && \
	$(COMPILE) --group agents-adk -o requirements/agents-adk.txt && \
	$(COMPILE) --group agents-sdk1 -o requirements/agents-sdk1.txt && \
	$(COMPILE) --group deploy -o requirements/deploy.txt
