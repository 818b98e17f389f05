# One command for each thing; `make` alone lists them. Needs Python 3.10 or newer, a C++ compiler and
# make; CMake, Ninja and everything else come from the Python package index into .venv.

PYTHON ?= python3
CONFIG ?= config/polytls.toml

VENV := .venv
BIN := $(VENV)/bin
# A path, so that the sources find the module without a system-wide install.
PY := $(CURDIR)/$(BIN)/python
CMAKE := $(CURDIR)/$(BIN)/cmake
CTEST := $(CURDIR)/$(BIN)/ctest
NINJA := $(CURDIR)/$(BIN)/ninja

# What somebody names, else what CMake looks for; make's own default for CXX is only one of these.
COMPILERS = $(if $(filter default undefined,$(origin CXX)),c++ g++ clang++,$(firstword $(CXX)))

# A night's worth is FUZZ_SECONDS=3600.
FUZZ_SECONDS ?= 30
FUZZ_CC ?= clang
FUZZ_CXX ?= clang++
FUZZ_SANITIZE := fuzzer-no-link,address,undefined

VALGRIND ?= valgrind
# What is only still reachable when the process ends are tables of the libraries, made once.
VALGRIND_OPTIONS := --quiet --error-exitcode=1 --leak-check=full --show-leak-kinds=definite,indirect,possible \
	--errors-for-leak-kinds=definite,indirect,possible --fair-sched=yes

INSTALLED := $(VENV)/.installed
no_index = echo "polytls: error: pip could not install what is needed (above it says what); is the Python package index reachable? PIP_INDEX_URL names another, HTTPS_PROXY a proxy" >&2; exit 1;
CONFIGURE = $(CMAKE) -S native -G Ninja --log-level=WARNING \
	-DCMAKE_MAKE_PROGRAM=$(NINJA) -DPython_EXECUTABLE=$(PY) -DPOLYTLS_DEVELOPMENT=ON

.DEFAULT_GOAL := help
.PHONY: help build run demo demo-otlp test check lint format declarations native-test native-test-asan \
	native-test-tsan fuzz fuzz-compiler fuzz-build fuzz-grow valgrind valgrind-found boringssl-test \
	soak bench bench-build bench-peers callgrind wheel image-try image-lock clean distclean tools

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(INSTALLED) ## Create .venv, build the native engine, install in place
	@$(PY) native/boringssl/prepare.py >/dev/null
	@test -f build/dev/build.ninja || $(CONFIGURE) -B build/dev
	@$(CMAKE) --build build/dev

run: build ## Start the proxy on 127.0.0.1:8080 (CONFIG=file names another configuration)
	@exec $(BIN)/polytls serve --config $(CONFIG)

demo: build ## Show three profiles as a local TLS origin sees them
	@$(PY) tests/demo/demo.py

test: build bench-build ## Run all Python tests (ARGS='-k name' are passed to pytest)
	@$(PY) -m pytest $(ARGS)

lint: build ## Formatting, lint, types, layers, drift of the C declarations
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(PY) -m mypy
	@$(BIN)/lint-imports
	@$(PY) native/ffi/declarations.py --check

check: lint test callgrind ## Everything that must hold before a commit: lint, test, then callgrind

format: $(INSTALLED) ## Format and fix what can be fixed by machine
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

declarations: $(INSTALLED) ## Take native/ffi/declarations.txt anew from native.h
	@$(PY) native/ffi/declarations.py --write

demo-otlp: build ## Show what an OpenTelemetry collector gets of good and bad tunnels
	@$(PY) tests/demo/otlp.py

native-test: native-test-asan native-test-tsan ## Native tests under ASan+UBSan, then under TSan

native-test-asan: $(INSTALLED)
	@$(call native_test,asan,address,undefined)

native-test-tsan: $(INSTALLED)
	@$(call native_test,tsan,thread)

fuzz: fuzz-compiler build fuzz-build ## Fuzz each target for FUZZ_SECONDS (default 30), native ones with Clang's libFuzzer
	@$(PY) native/fuzz/run.py --build build/fuzz --seconds $(FUZZ_SECONDS)
	@$(PY) -m tests.fuzz.run --seconds $(FUZZ_SECONDS)
	@seed=$$(date +%s) && echo "mirror: mutations of seed $$seed" && \
	  POLYTLS_MIRROR_SEED=$$seed POLYTLS_MIRROR_MUTATIONS=$$(($(FUZZ_SECONDS) * 200)) \
	  $(PY) -m pytest -q -o timeout=0 tests/e2e/test_mirror_mutated.py

fuzz-grow: fuzz-build ## Take what fuzzing found into the corpora, the least that reaches as much
	@$(PY) native/fuzz/run.py --build build/fuzz --grow

fuzz-compiler:
	@echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }' | \
	  $(FUZZ_CXX) -fsanitize=fuzzer,address,undefined -x c++ -o /dev/null - 2>/dev/null || { \
	  echo "polytls: error: $(FUZZ_CXX) cannot build with libFuzzer; install Clang and its runtime (Debian, Ubuntu: apt-get install clang) or name one in FUZZ_CC and FUZZ_CXX. \`make native-test-asan\` replays the corpora with any compiler" >&2; exit 1; }

fuzz-build: fuzz-compiler $(INSTALLED)
	@$(PY) native/boringssl/prepare.py --sanitize $(FUZZ_SANITIZE) --cc $(FUZZ_CC) --cxx $(FUZZ_CXX) >/dev/null
	@test -f build/fuzz/build.ninja || $(CONFIGURE) -B build/fuzz -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_C_COMPILER=$(FUZZ_CC) -DCMAKE_CXX_COMPILER=$(FUZZ_CXX) -DPOLYTLS_SANITIZE=$(FUZZ_SANITIZE) \
	  -DPOLYTLS_FUZZER=ON -DPOLYTLS_PYTHON_MODULE=OFF
	@$(CMAKE) --build build/fuzz

valgrind: valgrind-found $(INSTALLED) ## The engine's start, tunnels and stop under valgrind's memcheck
	@$(PY) native/boringssl/prepare.py >/dev/null
	@test -f build/valgrind/build.ninja || $(CONFIGURE) -B build/valgrind -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPOLYTLS_NATIVE_TESTS=ON -DPOLYTLS_PYTHON_MODULE=OFF
	@$(CMAKE) --build build/valgrind --target shutdown_test
	@$(VALGRIND) $(VALGRIND_OPTIONS) build/valgrind/tests/shutdown_test

valgrind-found:
	@command -v $(VALGRIND) >/dev/null || { \
	  echo "polytls: error: valgrind was not found; install it (Debian, Ubuntu: apt-get install valgrind)" >&2; exit 1; }

boringssl-test: $(INSTALLED) ## BoringSSL's own ssl_test, linked with the patched library
	@prefix=$$($(PY) native/boringssl/prepare.py) && \
	  $(CMAKE) -S native/boringssl/ssl_test -B build/ssl_test -G Ninja --log-level=WARNING \
	    -DCMAKE_MAKE_PROGRAM=$(NINJA) -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
	    -DBORINGSSL_PREFIX=$$prefix && \
	  $(CMAKE) --build build/ssl_test && build/ssl_test/ssl_test --gtest_brief=1

bench: build bench-build ## Measure beside the yardstick and peers, ten minutes at most (ARGS='--only mitm.c32')
	@$(PY) -m tests.bench $(ARGS)

soak: build bench-build ## The proxy under everything, for SOAK_SECONDS (120) or SOAK_TUNNELS; SOAK_SEED repeats it
	@$(PY) -m tests.soak $(ARGS)

bench-build: $(INSTALLED) ## The native programs that measure, in build/bench/bin
	@$(PY) native/boringssl/prepare.py >/dev/null
	@test -f build/bench/build.ninja || $(CONFIGURE) -B build/bench -DPOLYTLS_BENCH=ON -DPOLYTLS_PYTHON_MODULE=OFF
	@$(CMAKE) --build build/bench

bench-peers: $(INSTALLED) ## Install mitmproxy for `make bench`, in an environment of its own
	@test -x build/bench-peers/mitmproxy/bin/python || $(PYTHON) -m venv build/bench-peers/mitmproxy
	@build/bench-peers/mitmproxy/bin/python -m pip install --quiet --disable-pip-version-check mitmproxy || { $(no_index) }

callgrind: build bench-build ## Instructions of the pure native paths, against what was recorded
	@$(PY) -m tests.bench.callgrind $(ARGS)

wheel: $(INSTALLED) ## Build a wheel into dist/
	@$(PY) -m pip wheel --no-deps --wheel-dir dist -v .

image-try: build ## Build docker/Dockerfile and run the image, without a registry (needs root and podman)
	@$(PY) -m tests.docker.image_try $(ARGS)

image-lock: $(INSTALLED) ## Pin anew what the image installs: docker/requirements*.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@$(call lock,requirements.txt,pyproject.toml --extra otlp)
	@$(call lock,requirements-build.txt,docker/requirements-build.in)

clean: ## Remove what was built here; the cache of BoringSSL stays
	rm -rf build dist polytls/engine/_native*.so
	find polytls tests native -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*

# $(call native_test,directory,sanitizers...): a comma in the sanitizers makes them two arguments.
define native_test
$(PY) native/boringssl/prepare.py --sanitize $(2)$(if $(3),$(comma)$(3)) >/dev/null
@test -f build/$(1)/build.ninja || $(CONFIGURE) -B build/$(1) -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	-DPOLYTLS_SANITIZE=$(2)$(if $(3),$(comma)$(3)) -DPOLYTLS_NATIVE_TESTS=ON -DPOLYTLS_PYTHON_MODULE=OFF
@$(CMAKE) --build build/$(1)
@$(CTEST) --test-dir build/$(1) --output-on-failure --no-tests=error
endef
comma := ,

# $(call lock,file,sources): for Debian 13's Python, with every hash of every file, so that all processors can use it.
define lock
{ echo "# Made by \`make image-lock\`; do not edit." && $(BIN)/uv pip compile --quiet $(2) \
  --python-version 3.13 --generate-hashes --no-annotate --no-header; } > docker/$(1).new && mv docker/$(1).new docker/$(1)
endef

# The environment, made anew when what it holds has changed.
$(INSTALLED): pyproject.toml | tools
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=23.1' || { $(no_index) }
	@echo "polytls: installing what is needed to build, check and test into $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || { $(no_index) }
	@touch $@

# Checked before anything is made, so that the first line says what is missing.
tools:
	@$(PYTHON) -c '' 2>/dev/null || { \
	  echo "polytls: error: $(PYTHON) does not run; install Python 3.10 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "polytls: error: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "polytls: error: $(PYTHON) cannot make virtual environments; install them (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys, sysconfig, pathlib; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || { \
	  echo "polytls: error: Python.h of $(PYTHON) is missing; install it (Debian, Ubuntu: apt-get install python3-dev)" >&2; exit 1; }
	@for compiler in $(COMPILERS); do command -v $$compiler >/dev/null && exit; done; \
	  echo "polytls: error: no C++ compiler was found; install one (Debian, Ubuntu: apt-get install g++) or name it in CXX" >&2; exit 1
