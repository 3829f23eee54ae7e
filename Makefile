# make convert [MODEL=folder] [OUT=file.gguf] [TYPE=Q4_K_M] [RAM=1GiB] [THREADS=n]   convert a checkpoint
# make test | test-all | soak | coverage | bench | lint | peers | clean

PYTHON  ?= python3
VENV    ?= .venv
MODEL   ?= examples/tiny-gemma3
OUT     ?= out/$(notdir $(patsubst %/,%,$(MODEL)))-$(TYPE).gguf
TYPE    ?= Q4_K_M
RAM     ?=
THREADS ?=
CACHE   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/streamconv
PEERS   ?= $(CACHE)/peers
MERGEKIT ?= $(CACHE)/mergekit-peer

BIN := $(VENV)/bin
# one word for the shell, whatever is in it
quoted = '$(subst ','\'',$1)'
STREAMCONV := $(BIN)/streamconv

.PHONY: convert test test-all soak coverage bench lint peers clean
.DELETE_ON_ERROR:

convert: $(VENV)/.installed
	@mkdir -p -- "$$(dirname -- $(call quoted,$(OUT)))"
	$(STREAMCONV) convert $(call quoted,$(MODEL)) $(call quoted,$(OUT)) --type $(call quoted,$(TYPE)) --update \
		$(if $(RAM),--ram $(call quoted,$(RAM))) $(if $(THREADS),--threads $(call quoted,$(THREADS)))
	@$(STREAMCONV) check $(call quoted,$(OUT))
	@echo "run it: llama-cli -m "$(call quoted,$(OUT))" -p 'def main():'"

$(VENV)/.installed: pyproject.toml
	@echo "setting up $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml
	@echo "setting up $(VENV) with the development tools (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(VENV)/.installed $@

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m "not slow and not soak"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto -m "not soak"

# The full numbers of spec and promise: STREAMCONV_SOAK thousandths of 1000 of each kind, and every write call. To see a failure
# again: STREAMCONV_SEED=<the seed it printed> make soak ONLY=<name of the test>
SOAK ?= 1000
soak: $(VENV)/.dev
	STREAMCONV_SOAK=$(SOAK) STREAMCONV_ALL_FAULTS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "soak or slow" $(if $(ONLY),-k "$(ONLY)") \
		tests/faults tests/hub tests/packing tests/toolbox tests/cluster tests/quant tests/sources/test_fuzz.py

# Compiled kernels cannot be traced: what their source does is measured where they run as plain Python.
coverage: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto -m "not slow and not soak"
	$(BIN)/coverage run -m pytest -n auto tests/quant/test_interpreted.py
	NUMBA_DISABLE_JIT=1 $(BIN)/coverage run -m pytest -n auto -W ignore::RuntimeWarning tests/dequant \
		tests/merging/test_lora.py tests/merging/test_merge_methods.py tests/merging/test_extract_lora.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=90

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/docstrings.py
	$(BIN)/python docs/make_cli.py --check
	$(BIN)/python docs/make_families.py --check

# The real llama.cpp and torch, for the oracle tests and the benchmarks; built once, outside the checkout.
peers: $(PEERS)/.installed
$(PEERS)/.installed:
	@echo "building the peers in $(PEERS) (about 5 minutes, once)"
	@mkdir -p $(dir $(PEERS))
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
		llama-cpp-python==0.3.36 transformers==5.23.0 gguf sentencepiece protobuf safetensors
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps bitsandbytes==0.50.2
	@$(PEERS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
		--dest $(PEERS)/sdist llama-cpp-python==0.3.36
	@mkdir -p $(PEERS)/llama.cpp && tar xzf $(PEERS)/sdist/*.tar.gz -C $(PEERS)/llama.cpp --strip-components=3 --wildcards \
		'*/vendor/llama.cpp/convert_hf_to_gguf.py' '*/vendor/llama.cpp/conversion/*' '*/vendor/llama.cpp/gguf-py/*' \
		'*/vendor/llama.cpp/models/ggml-vocab-*'
	@rm -rf $(PEERS)/sdist
	@touch $@

# mergekit wants older versions of what the others want, so it has an environment of its own.
$(MERGEKIT)/.installed:
	@echo "installing mergekit in $(MERGEKIT) (once)"
	@mkdir -p $(dir $(MERGEKIT))
	@$(PYTHON) -m venv $(MERGEKIT)
	@$(MERGEKIT)/bin/python -m pip install --quiet --disable-pip-version-check mergekit==0.1.5
	@touch $@

# make bench ONLY=kernels,merge measures these again and keeps the other results
bench: $(VENV)/.dev peers $(MERGEKIT)/.installed
	$(BIN)/python bench/run.py --peers $(PEERS) --mergekit $(MERGEKIT) $(if $(ONLY),--only $(ONLY))

# Models in out/ stay: they may have taken hours, or be somebody's.
clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
