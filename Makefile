# Every verb of the project. Needs Linux, Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
# a worker for each core, a file of tests at a time; each takes up to 2 GB, so no more than four
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

WITHOUT_TORCH := tests/service tests/aerofix tests/e2e tests/examples tests/docker tests/benchmarks \
  tests/contract/test_index_contract.py tests/contract/test_milvus_contract.py tests/contract/test_offline.py

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-service soak lowest lint format bench containers gpu-check docs examples clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/cpu.done  ## a position for each demo photo, in a service that stays up (ONCE=1: exit afterwards)
	@$(BIN)/python examples/demo.py $(if $(ONCE),--once)

serve: .venv/cpu.done  ## the service on http://127.0.0.1:8000 (gallery file: aerofix.gallery)
	@$(BIN)/aerofix serve

test: .venv/dev.done .venv-milvus/done  ## all tests
	$(PYTEST)

test-service: .venv/service.done  ## the tests that need no torch, of all but training (600 MB instead of 6 GB)
	$(PYTEST) $(WITHOUT_TORCH)

soak: .venv/dev.done .venv-milvus/done  ## the tests that take minutes: thousands of damaged images, bodies and maps
	$(BIN)/pytest -m soak

lowest: .venv/dev.done  ## the service with the lowest versions that pyproject.toml allows
	$(BIN)/pytest -m soak tests/soak/test_lowest.py

lint: .venv/dev.done  ## style, types, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev.done  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: .venv/dev.done .venv-bench/done  ## tables of speed and accuracy (accuracy on real photos needs DATA=folder)
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/simulator.py
	$(BIN)/python benchmarks/tracks.py
	$(if $(DATA),$(BIN)/python benchmarks/real.py --data $(DATA))

containers:  ## build and run the images without a Docker engine (root on Debian; TARGETS="gpu train" builds those too)
	@$(PYTHON) docker/containers.py $(TARGETS)

gpu-check:  ## does all that aerofix runs on a GPU work here, and how fast (with what is installed: .venv, or python3)
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu_check.py

bench-ground: .venv/dev.done  ## what maps cost: bytes a km², a million windows, the index (heights and pitches over real ground need DATA=folder)
	$(BIN)/python benchmarks/ground.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/priors.py --sizes 100000 1000000
	$(if $(DATA),$(BIN)/python benchmarks/heights.py --data $(DATA))
	$(if $(DATA),$(BIN)/python benchmarks/pitch.py --data $(DATA))

docs: .venv/dev.done  ## the documents as a site of pages, in site/
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict

examples: .venv/dev.done  ## remake the demo area and its photos
	$(BIN)/python examples/make_examples.py

clean:  ## remove the virtual environment and everything made
	rm -rf .venv .venv-bench .venv-milvus dist build site runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aerofix needs Python 3.11 or newer: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv

.venv/cpu.done: .venv/bin/pip pyproject.toml constraints.txt
	@echo "installing the service into .venv (once)"
	@$(PIP) --editable '.[cpu]'
	@touch $@

.venv/service.done: .venv/bin/pip pyproject.toml constraints.txt
	@echo "installing what tests of the service need into .venv (once, about 600 MB)"
	@$(PIP) --editable '.[cpu,video,bridge,otel,dev]'
	@touch $@ .venv/cpu.done

.venv/dev.done: .venv/bin/pip pyproject.toml constraints.txt
	@echo "installing what tests and training need into .venv (once, about 6 GB)"
	@$(PIP) --editable '.[cpu,video,bridge,otel,train,dev,docs]'
	@touch $@ .venv/cpu.done .venv/service.done

.venv-bench/done: .venv/bin/pip pyproject.toml constraints.txt
	@echo "installing other servers into .venv-bench (once, about 500 MB)"
	@$(BIN)/python -m venv .venv-bench
	@.venv-bench/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,bench]'
	@touch $@

# milvus-lite brings a FAISS of its own, so the servers live apart; the genuine one is that of 2024, the last as a package
.venv-milvus/done: .venv/bin/pip
	@echo "installing Milvus servers for tests into .venv-milvus (once, about 550 MB)"
	@$(BIN)/python -m venv .venv-milvus
	@.venv-milvus/bin/pip install --quiet --disable-pip-version-check setuptools pymilvus==3.0.2 milvus-lite==3.2.2 milvus==2.3.5 \
	  && touch $@ || echo "there are none here: the tests of Milvus are skipped"
