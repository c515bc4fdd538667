# Everything a newcomer types. Each target sets up what it needs first; what is set up already costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-uncompiled bench bench-stages bench-scale bench-inline benchmarks soak fuzz budgets xen-test lint check-generated proto lock clean

# The distribution's interpreter first: built with profile-guided and link-time optimization, it is up to 1.6 times as fast as a
# plain build from source, and its security updates come with the others
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13) \
	$(shell command -v python3.11 python3.12 python3.13 python3) python3)
BIN := .venv/bin
# Who may not build networks on this machine does it in namespaces of their own
PRIVATE := $(if $(filter 0,$(shell id -u)),,tools/private)
export PYTHON
export PYTHONUNBUFFERED := 1

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

demo: packages-demo .venv/.runtime .venv/.compiled  ## the main job in a minute: LAN, Septum, WAN and a stock peer (STAY=1: leave it running)
	@tools/private $(BIN)/python -m demo $(if $(STAY),--stay)

test: packages-test .venv/.dev .venv/.compiled  ## every test (ARGS="-k rekey" goes to pytest)
	@$(PRIVATE) $(BIN)/python -m pytest $(ARGS)

test-uncompiled: packages-test .venv/.dev bytecode  ## the system tests where nothing is compiled (ARGS="tests/system -k rekey" goes to pytest)
	@$(PRIVATE) $(BIN)/python -m tests.uncompiled $(ARGS)

bench: packages-bench .venv/.dev .venv/.compiled bytecode  ## measure against wireguard-go, OpenVPN and no tunnel (PEER=path: another wireguard-go)
	@$(PRIVATE) $(BIN)/python -m bench $(if $(PEER),--peer $(PEER)) $(ARGS)

bench-stages: packages-bench .venv/.dev .venv/.compiled  ## what a boundary costs, and how long a packet stays in each domain
	@$(PRIVATE) $(BIN)/python -m bench.stages

bench-scale: packages-bench .venv/.dev .venv/.compiled  ## handshakes a second on one core; TCP with ten thousand peers against two (ARGS="--rounds 8")
	@$(PRIVATE) $(BIN)/python -m bench.scale $(ARGS)

bench-inline: packages-bench .venv/.dev .venv/.compiled bytecode  ## the transparent filter against a bridge of Linux (ARGS="--rounds 8")
	@$(PRIVATE) $(BIN)/python -m bench.inline $(ARGS)

benchmarks: bench  ## make bench, and docs/benchmarks.md with its picture from what it wrote
	@$(BIN)/python -m bench.page

soak: packages-bench .venv/.dev .venv/.compiled bytecode  ## a transfer of an hour (MINUTES=60) through one box: do memory and rate stay flat?
	@$(PRIVATE) $(BIN)/python -m bench.soak --minutes $(or $(MINUTES),60)

fuzz: packages-fuzz .venv/.dev  ## the compiled loops under sanitizers, MINUTES=1 of damaged inputs (ARGS="--seed 7": the same again)
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),1) $(ARGS)

xen-test: packages-xen .venv/.dev .venv/.compiled bytecode  ## the same components on real Xen, emulated (SHORT=1: the gateway alone, from nothing in sixteen minutes of two processors; ARGS="-k channel")
	@$(BIN)/python -m pytest --capture=sys tests/xen $(if $(SHORT),--short) $(ARGS)

budgets: packages-test .venv/.dev .venv/.compiled  ## count anew what a packet may cost each domain, after a change that was meant to
	@$(PRIVATE) $(BIN)/python -m tests.budgets.count

lint: .venv/.dev check-generated  ## style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p appliance -p components -p tests.system.lab -p bench -p demo
	@$(BIN)/lint-imports --no-logo

# Protobuf -----------------------------------------------------------------------------------------------------------

SCHEMAS := $(wildcard proto/septum/v1/*.proto)
SERVICES := $(wildcard proto/septum/admin/v1/*.proto)
PROTOC = $(BIN)/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=$(1) --mypy_out=quiet:$(1)
PROTOC_GRPC = $(call PROTOC,$(1)) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1)

proto: .venv/.dev  ## generate the Python of the schemas of channels and of the admin service
	@$(call PROTOC,proto) $(SCHEMAS)
	@$(call PROTOC_GRPC,proto) $(SERVICES)
	@$(BIN)/python -m appliance.vchan.generate proto/septum/v1

check-generated: .venv/.dev  ## is the committed Python of the schemas what they generate?
	@rm -rf build/proto && mkdir -p build/proto
	@$(call PROTOC,build/proto) $(SCHEMAS)
	@$(call PROTOC_GRPC,build/proto) $(SERVICES)
	@$(BIN)/python -m appliance.vchan.generate build/proto/septum/v1
	@for file in build/proto/septum/{v1,admin/v1}/* $(filter-out %/__init__.py,$(wildcard proto/septum/v1/*.py* proto/septum/admin/v1/*.py*)); do \
	    name=septum/$${file#*/septum/}; \
	    cmp -s build/proto/$$name proto/$$name || { echo "proto/$$name is not what its schema generates: make proto" >&2; exit 1; }; \
	done

# Set-up -------------------------------------------------------------------------------------------------------------

.PHONY: packages-demo packages-test packages-bench packages-fuzz packages-xen
packages-demo packages-test packages-bench packages-fuzz packages-xen: packages-%:
	@tools/packages $*

.venv/.runtime: requirements.lock pyproject.toml | packages
	@tools/venv requirements.lock
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation --no-index --disable-pip-version-check -e .
	@$(BYTECODE)
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@tools/venv requirements-dev.lock
	@touch $@

# The compiled loops, where there is a compiler; where there is none, one is looked for each time
COMPILED := $(wildcard appliance/*/*.pyx appliance/*/*.pxd components/*/*.pyx components/*/*.pxd)
.venv/.compiled: $(COMPILED) setup.py .venv/.runtime
	@$(BIN)/python setup.py -q build_ext --inplace
	@! ls components/{net,crypto}/fast.*.so >/dev/null 2>&1 || touch $@

# Domains write no bytecode: whatever changed since would be compiled at each start of each of them, and measured. The
# tables of the rules' grammar lie beside it
BYTECODE = $(BIN)/python -m compileall -q appliance components proto && \
	$(BIN)/python -c "from appliance.rules import parse; parse.make_tables()"
.PHONY: bytecode
bytecode: .venv/.runtime
	@$(BYTECODE)

.PHONY: packages
packages:
	@tools/packages venv

PIP_COMPILE = CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile -q --generate-hashes --allow-unsafe --strip-extras \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options $(if $(UPGRADE),--upgrade)

lock: .venv/.dev  ## pin the dependencies of pyproject.toml, with hashes (UPGRADE=1: to their newest)
	@$(PIP_COMPILE) --build-deps-for=editable -o requirements.lock pyproject.toml
	@$(PIP_COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:  ## remove everything that was generated or installed here
	@rm -rf .venv build *.egg-info {appliance,components}/*/{fast,short,shared}{.c,.*.so} .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
