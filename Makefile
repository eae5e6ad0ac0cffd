# Each target is one command or two. `make demo` is where to start.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
PYTEST := .venv/bin/pytest

.PHONY: demo build test soak programs base fuzz-short fuzz bench lint clean

demo: build  ## Build, run the main job, print the times
	@.venv/bin/python tests/demo.py

build:  ## Leave the package in .venv, with .venv/bin/pilot
	@.ci/need gcc libc6-dev python3 python3-venv
	@python3 hatch_build.py
	@$(MAKE) -s .venv/installed

test: build  ## Everything but the soak
	@.ci/need gcc libc6-dev make git perl python3 python3-venv sqlite3 gzip xz-utils zstd procps awscli busybox
	cargo test -q --locked --workspace
	$(PYTEST) -n 2 -m "not soak and not programs and not base"

soak: build  ## Hostile programs for minutes rather than seconds
	@.ci/need gcc libc6-dev
	$(PYTEST) -m soak

programs: build  ## Large programs and their own suites, inside and outside
	@# Node's own packages bring npm, and refuse Debian's beside them.
	@command -v npm >/dev/null || .ci/need nodejs npm
	@.ci/need acl attr bubblewrap busybox cargo git golang-go libpython3.11-testsuite mount python3-pip python3-venv stress-ng util-linux \
		chromium curl gcc iproute2 iputils-ping nginx-light openjdk-17-jdk-headless openssh-client openssh-server \
		openssl passwd redis-server redis-tools wrk
	$(PYTEST) -m programs

base: build  ## Make the image `base` out of Debian's packages, and use it
	@.ci/need mmdebstrap
	$(PYTEST) -m base

fuzz-short:  ## Fuzzing, a minute a target
	@.ci/need g++ gcc libc6-dev python3
	python3 fuzz/run.py --seconds 60

fuzz:  ## Fuzzing, an hour a target
	@.ci/need g++ gcc libc6-dev python3
	python3 fuzz/run.py --seconds 3600

bench: build  ## Measure, beside the peers
	.venv/bin/python -m bench --csv target/bench

lint: build  ## ruff, mypy, rustfmt, clippy
	.venv/bin/ruff check -q . && .venv/bin/ruff format -q --check . && .venv/bin/mypy
	cargo fmt --all --check && cargo clippy -q --locked --workspace --all-targets -- -D warnings

clean:  ## Remove what was built
	rm -rf .venv target src/cloudpilot/_bin

.venv/installed: pyproject.toml
	@echo "Installing the package and the development tools into .venv"
	@python3 -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check -e '.[dev,service]'
	@touch $@
