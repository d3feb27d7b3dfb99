# Two commands do everything: `make demo` and `make test`. Each installs into .venv first, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# TORCH=cpu: torch and torchvision built for the CPU alone, without NVIDIA's libraries, a third of the size. They come
# from an index that has them: name it to pip, as in PIP_EXTRA_INDEX_URL=ADDRESS make demo TORCH=cpu
TORCH ?=
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: demo test slow cluster gpu lint types wheel install clean

demo: $(VENV)/.installed
	$(BIN)/raypatch run demo
	$(BIN)/raypatch report runs/demo

test: $(VENV)/.installed
	$(PYTEST) -m "not slow and not cluster"

slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

cluster: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster

# On a machine with a CUDA device: all that needs one, in under eight minutes, into benchmarks/results/.
gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu/check.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# analysis/ and search_spaces/ are mapped into the package when it is built, so types are checked on a build: of nothing
# that an older build left in build/lib.
types: $(VENV)/.installed
	rm -rf build/lib build/types
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p raypatch

wheel: $(VENV)/.installed
	$(BIN)/python -m build --quiet --no-isolation --wheel --outdir dist .

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "raypatch needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -E 's/^(torch|torchvision)==[^+]*$$/&$(if $(TORCH),+$(TORCH))/' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/pip install --quiet --upgrade --constraint $(VENV)/constraints.txt pip setuptools
	$(BIN)/pip install --quiet --constraint $(VENV)/constraints.txt --editable '.[dev,medical,explain]' || \
	  { echo "pip could not install raypatch.$(if $(TORCH), Name an index that has torch and torchvision for $(TORCH): \
	PIP_EXTRA_INDEX_URL=ADDRESS)"; exit 2; }
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
