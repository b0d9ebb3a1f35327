# Everything runs in .venv, which is made on demand; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
BIN = .venv/bin
CORES ?= 2

.PHONY: demo test test-slow test-backends gallery lint clean

demo: .venv/demo
	rm -rf demo
	$(BIN)/keras-lrsched compare --workload digits,pydoc --schedules constant,cosine,linear,rex,wsd \
		--seeds 3 --out demo

test: .venv/dev
	$(BIN)/python -m pytest -n $(CORES)

# What takes minutes: runs with each controller, killed twenty times.
test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# The contract suites and callbacks once more, on the other two backends of Keras. PyTorch is pinned: its plain build brings
# gigabytes.
test-backends: .venv/backends
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n $(CORES) tests/contract tests/callbacks
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(BIN)/python -m pytest -n $(CORES) tests/contract tests/callbacks

# One picture with a panel a schedule, and the page that shows it.
gallery: .venv/demo
	$(BIN)/python docs/make_gallery.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/demo: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,compare]'
	touch $@

.venv/dev: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,dev]'
	touch $@

.venv/backends: .venv/dev
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,jax,torch,dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
