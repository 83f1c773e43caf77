# Short names for what one does here; everything real is in CMake, ctest and tools/.
#
#   make run                      an answer from the built-in nano model
#   make run ARGS='-p "It was"'   arguments for carat run
#   make test                     build everything, pass everything
#
# JOBS=N limits the compiler processes, PREFIX=... says where `make install` goes.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
SIZE ?= E2B
FUZZ_SECONDS ?= 60
PROMPT := It is a truth universally acknowledged, that
ARGS ?= -p "$(PROMPT)"
SOURCES = git ls-files -z -- '*.cc' '*.h'

.DEFAULT_GOAL := build
.PHONY: help deps deps-test build run test asan tsan neon fuzz bench nano-data nano fidelity install \
        format tidy check clean

help:  ## this list
	@sed -n 's/^\([a-z][a-z -]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

deps:  ## install the Debian packages that are missing for a build
	@tools/install_deps.sh build

deps-test: deps
	@tools/install_deps.sh test
	@tools/install_peers.sh

# A build directory that is there keeps the generator it was made with.
build/CMakeCache.txt: | deps
	@cmake --preset release

build: deps build/CMakeCache.txt  ## build the program and the tests in build/
	@cmake --build build -j $(JOBS)

run: deps build/CMakeCache.txt  ## build carat and let the nano model answer (ARGS passes through)
	@if [ -x build/carat ]; then quiet="-- --quiet"; fi; \
	  cmake --build build -j $(JOBS) --target carat $$quiet >&2
	@build/carat run $(ARGS)

test: deps-test build  ## build everything and pass all tests, the referees included
	@ctest --test-dir build --output-on-failure -j $(JOBS)

asan tsan: deps-test  ## the unit tests under the address or the thread sanitizer
	@cmake --preset $@
	@cmake --build --preset $@ -j $(JOBS)
	@ctest --preset $@ -j $(JOBS)

neon: deps  ## the tests of the kernels and what they stand on for 64-bit ARM, run through qemu
	@tools/install_deps.sh neon
	@cmake --preset neon
	@cmake --build --preset neon -j $(JOBS)
	@ctest --preset neon -j $(JOBS)

fuzz: deps  ## run each reader's fuzz target for FUZZ_SECONDS
	@tools/install_deps.sh fuzz
	@cmake --preset fuzz
	@cmake --build --preset fuzz -j $(JOBS)
	@set -e; for target in build/fuzz/*_fuzz; do \
	  name=$$(basename $$target _fuzz); mkdir -p build/fuzz/found/$$name; \
	  echo "$$name: $(FUZZ_SECONDS) s"; \
	  $$target -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=512 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/found/$$name- build/fuzz/found/$$name fuzz/corpus/$$name; \
	done

bench: deps build/CMakeCache.txt  ## speed of a random model of true shape (SIZE=E2B)
	@cmake --build build -j $(JOBS) --target carat
	@mkdir -p build/bench
	@test -e build/bench/$(SIZE).gguf || build/carat synth $(SIZE) build/bench/$(SIZE).gguf
	build/carat bench build/bench/$(SIZE).gguf -p 512 -n 32

nano-data:  ## the text that the nano model learns from, into build/nano/text
	@tools/install_deps.sh build
	@tools/nano_text.py build/nano/text

nano: nano-data build/CMakeCache.txt  ## train nano again, text to Q4_0 (KIND=moe, KIND=kv: others)
	@cmake --build build -j $(JOBS) --target carat
	@bash models/make.sh nano$(addprefix -,$(KIND))

fidelity: nano-data build/CMakeCache.txt  ## the table of docs/fidelity.md: methods, three models
	@cmake --build build -j $(JOBS) --target carat
	@bench/fidelity_table.py

install: deps build/CMakeCache.txt  ## install the program, licence and docs below PREFIX
	@cmake --build build -j $(JOBS) --target carat
	@cmake --install build --prefix $(PREFIX)

format:  ## clang-format every C++ file
	@tools/install_deps.sh lint
	@$(SOURCES) | xargs -0 clang-format -i

check:  ## layers and formatting, without building
	@tools/install_deps.sh lint
	@python3 tools/check_layers.py
	@$(SOURCES) | xargs -0 clang-format --dry-run --Werror

tidy: build  ## clang-tidy over the sources (slow)
	@tools/install_deps.sh lint
	@git ls-files -- 'src/*.cc' | xargs -P $(JOBS) -n 1 clang-tidy -p build --quiet

clean:  ## remove the build
	@cmake -E rm -rf build
