# Everything runs in .venv, which is made on demand; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
BIN = .venv/bin
CORES ?= 2
# Two processes more than cores, since tests wait for compilers and for other processes.
PARALLEL = -n $(shell expr $(CORES) + 2) --dist worksteal
ALSO = tests/kernels tests/optimizers/test_fused_optimizer.py
# Many tests start processes, each of which would compile the package's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-nightly test-slow faults test-backends test-backends-nightly test-native test-aarch64 test-peers test-exports test-programs test-programs-examples test-keras-versions test-lowest test-ray test-docs notebooks test-notebook-install results api gallery docs lint prebuilt wheel repair sdist check-dist test-wheel wheels clean

demo: .venv/demo
	$(BIN)/keras-lrsched compare --workload digits,pydoc --schedules constant,cosine,linear,rex,wsd --budget 90 \
		--evaluations 5 --seeds 3 --workers 2 --out demo

test: .venv/dev
	$(BIN)/python -m pytest $(PARALLEL)

# What shows again, for another member or by another compiler, what `make test` has shown for one of its kind.
test-nightly: .venv/dev
	$(BIN)/python -m pytest $(PARALLEL) -m "nightly and not slow"

# What takes minutes: runs with each controller, killed twenty times; formats, and more of the contracts, compiled by XLA.
test-slow: .venv/backends
	$(BIN)/python -m pytest -m slow
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) tests/precision
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) -m slow tests/contract/test_optimizers.py tests/distributed
	KERAS_BACKEND=torch $(BIN)/python -m pytest $(PARALLEL) -m slow tests/distributed

# Kills, full disks, damaged files; writes docs/benchmarks/reliability.md. A small disk is mounted if that is allowed.
faults: .venv/backends
	$(BIN)/python docs/make_reliability.py

# The contract suites, callbacks and studies once more on the other two backends of Keras, and what is nightly of them. PyTorch is
# pinned: its plain build brings gigabytes.
ON_BACKENDS = tests/contract tests/callbacks tests/data tests/distributed tests/study/test_study.py $(ALSO)

test-backends: .venv/backends
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) $(ON_BACKENDS)
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(BIN)/python -m pytest $(PARALLEL) $(ON_BACKENDS) tests/precision

test-backends-nightly: .venv/backends
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) -m "nightly and not slow" $(ON_BACKENDS)
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(BIN)/python -m pytest $(PARALLEL) -m "nightly and not slow" $(ON_BACKENDS) \
		tests/precision

# Every feature in the structures of real programs, by value; prints the matrix, and checks that docs/benchmarks/programs.md shows it. A
# sample on JAX and PyTorch. All cells of a program run in one process, since they share its runs; `make test-slow` has the rest.
PROGRAMS = -m pytest -n $(CORES) --dist loadgroup -m "programs and not slow" tests/programs/test_programs.py
SAMPLE = sequential_without_input or sample_weights or accumulation or fit_in_a_loop

test-programs: .venv/backends
	$(BIN)/python $(PROGRAMS)
	KERAS_BACKEND=jax $(BIN)/python $(PROGRAMS) -k "$(SAMPLE)"
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(BIN)/python $(PROGRAMS) -k "$(SAMPLE) or functional or \
		subclassed_with_training or several_outputs or masked_lstm"

# KerasHub's tasks and its backbones, recommenders, tuners and trackers around `fit`, in an environment of their own; the guide on
# studies, one of whose models is KerasHub's, and their log to MLflow.
test-programs-examples: .venv-examples/made
	.venv-examples/bin/python -m pytest -m programs tests/programs/test_examples.py tests/programs/test_backbones.py
	.venv-examples/bin/python -m pytest -m nightly tests/test_documents.py -k study
	.venv-examples/bin/python -m pytest tests/study/test_study_report.py -k mlflow

# Optimizers and schedules beside the packages that they come from, in two environments of their own: TensorFlow Addons needs
# an old TensorFlow, and Python 3.11 at most. optax' convergence problems. Keras' own tests with the classes here under Keras'
# names, on each backend.
test-peers: .venv-peers/made .venv-tfa/made .venv/backends
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 .venv-peers/bin/python -m pytest -n $(CORES) -m peers tests/peers
	KERAS_BACKEND=jax .venv-peers/bin/python -m pytest -n $(CORES) -m peers tests/peers/test_convergence.py
	KERAS_BACKEND=tensorflow $(BIN)/python -m tests.peers.keras_suites -n $(CORES)
	KERAS_BACKEND=jax $(BIN)/python -m tests.peers.keras_suites -n $(CORES)
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(BIN)/python -m tests.peers.keras_suites -n $(CORES)

# Searches and studies by workers of Ray, on this machine and on a cluster of two nodes, in an environment of their own.
test-ray: .venv-ray/made
	KERAS_BACKEND=jax .venv-ray/bin/python -m pytest -m slow tests/tune tests/study/test_ray_cluster.py

# The foundation and the contracts on the oldest and the newest Keras that setup.cfg admits, in environments of their own. TensorFlow
# 2.21 needs Keras 3.12, so the oldest one runs on 2.20.
CONTRACTS = -m pytest $(PARALLEL) tests/core tests/contract

test-keras-versions: .venv-keras-oldest/made .venv-keras-newest/made
	.venv-keras-oldest/bin/python $(CONTRACTS)
	.venv-keras-newest/bin/python $(CONTRACTS)

# The same, schedules, laws, studies and the command line on the lowest version of each dependency; kernels and callbacks on JAX.
test-lowest: .venv-lowest/made
	.venv-lowest/bin/python $(CONTRACTS) tests/schedules tests/laws tests/study tests/test_cli.py
	KERAS_BACKEND=jax .venv-lowest/bin/python -m pytest $(PARALLEL) tests/kernels tests/contract/test_callbacks.py

# Models with each recipe, exported to SavedModel, ONNX and LiteRT and run without the package, in an environment with the
# converters. It takes a quarter of an hour.
test-exports: .venv-exports/made
	.venv-exports/bin/python -m pytest -m exports tests/exports
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 .venv-exports/bin/python -m pytest -m exports tests/exports

# The C++ of ops/kernels alone, under AddressSanitizer and UndefinedBehaviorSanitizer.
test-native:
	tests/native/run.sh build/native

# The same on an emulated aarch64, with the bits of this machine. It needs a cross compiler and QEMU.
test-aarch64:
	tests/native/run_aarch64.sh build/native-aarch64

# Every notebook from top to bottom in quick mode, or ONLY="low_precision or no_tuning"; what they claim has to hold.
notebooks: .venv/dev
	$(BIN)/python -m pytest -m slow --durations=0 tests/test_notebooks.py $(if $(ONLY),-k "$(ONLY)")

# The install cell of the notebooks as it is written, in an environment like Colab's: it installs the wheel in dist/, from which
# the package is imported then.
test-notebook-install: wheel .venv-colab/made
	.venv-colab/bin/python release/try_notebook.py dist/keras_lrsched-*-manylinux*.whl

# Every notebook, and docs/benchmarks/results.md, the table of what they found.
results: .venv/dev
	$(BIN)/python docs/make_results.py --run

# The committed list of public names, for type checkers and for tests/api.
api: .venv/dev
	$(BIN)/python docs/make_api.py

# One picture with a panel a schedule, and the page that shows it.
gallery: .venv/demo
	$(BIN)/python docs/make_gallery.py

# The site, in build/site, with all links checked. It needs no network; --strict makes every warning an error.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	$(BIN)/python docs/check_links.py build/site

# The code of its pages, and the schedule explorer in Chromium (of the system), if there is one.
test-docs: docs .venv/dev
	$(BIN)/python -m pytest -m "slow or not slow" tests/docs

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python docs/check_words.py
	$(BIN)/clang-format --dry-run --Werror ops/*/*.cc ops/*/*.h custom_ops_cuda/*.cu custom_ops_cuda/*.cc custom_ops_cuda/*.h \
		tests/native/*.cc tests/native/*.h

# Releases. The libraries of a wheel are compiled for the frameworks of release/prebuilt.txt, and for those of the environments in
# ALSO_FOR (as .venv-colab/bin/python): then the wheel serves several versions. Its tag is the oldest C library that they run on,
# by auditwheel; TensorFlow's own libraries are excluded, since the process has loaded them before.
ALSO_FOR ?=
TENSORFLOW_LIBRARIES = --exclude libtensorflow_framework.so.2 --exclude libtensorflow_cc.so.2
MAKE_PREBUILT = release/make_prebuilt.py build/prebuilt

prebuilt: .venv-prebuilt/made
	rm -rf build/prebuilt
	PYTHONPATH=. KERAS_BACKEND=jax TF_CPP_MIN_LOG_LEVEL=2 .venv-prebuilt/bin/python $(MAKE_PREBUILT)
	for python in $(ALSO_FOR); do \
		PYTHONPATH=. KERAS_BACKEND=jax TF_CPP_MIN_LOG_LEVEL=2 $$python $(MAKE_PREBUILT) --allow-missing || exit 1; done

wheel: prebuilt .venv/dev
	rm -rf build/lib build/bdist* build/wheel dist/*.whl
	KERAS_LRSCHED_PREBUILT=build/prebuilt $(BIN)/python -m build --wheel --outdir build/wheel
	$(MAKE) repair

WHEELS = build/wheel/*.whl
DIST = dist
AUDITWHEEL = $(BIN)/auditwheel

repair:
	PATH="$(CURDIR)/$(BIN):$$PATH" $(AUDITWHEEL) repair $(TENSORFLOW_LIBRARIES) --wheel-dir $(DIST) $(WHEELS)

sdist: .venv/dev
	rm -rf dist/*.tar.gz
	$(BIN)/python -m build --sdist --outdir dist

# Of what lies in dist/: metadata and README are rendered, and the sdist holds no compiled code.
check-dist: .venv/dev
	$(BIN)/twine check --strict dist/*
	$(BIN)/python release/check_dist.py dist

# The wheel in a new environment without a compiler: the first update by a kernel, on both frameworks.
test-wheel: .venv-wheel/made
	.venv-wheel/bin/python -m pip install --quiet --force-reinstall --no-deps dist/*.whl
	.venv-wheel/bin/python release/first_update.py tensorflow jax

# The wheel by cibuildwheel, in the container of the manylinux project: it needs Docker.
wheels: .venv-cibuildwheel/made
	.venv-cibuildwheel/bin/python -m cibuildwheel --platform linux --output-dir dist

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/demo: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,compare]'
	touch $@

.venv/dev: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,dev]'
	touch $@

.venv/docs: .venv/bin/python setup.cfg pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,docs]'
	touch $@

.venv/backends: .venv/dev
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[tensorflow,jax,torch,dev]'
	touch $@

.venv-peers/made: tests/peers/requirements.txt tests/peers/requirements_no_deps.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r tests/peers/requirements.txt
	.venv-peers/bin/python -m pip install --quiet --no-deps -r tests/peers/requirements_no_deps.txt
	touch $@

.venv-examples/made: setup.cfg
	$(PYTHON) -m venv .venv-examples
	.venv-examples/bin/python -m pip install --quiet -e '.[tensorflow,examples]' pytest pytest-timeout
	touch $@

.venv-ray/made: setup.cfg
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet -e '.[jax,ray]' pytest pytest-timeout scikit-learn
	touch $@

TOOLS = pytest pytest-timeout pytest-xdist hypothesis

.venv-keras-oldest/made: setup.cfg
	$(PYTHON) -m venv .venv-keras-oldest
	.venv-keras-oldest/bin/python -m pip install --quiet -e '.[tensorflow,compare]' $(TOOLS) tensorflow==2.20.0 keras==3.10.0
	touch $@

.venv-keras-newest/made: setup.cfg
	$(PYTHON) -m venv .venv-keras-newest
	.venv-keras-newest/bin/python -m pip install --quiet --upgrade -e '.[tensorflow,compare]' $(TOOLS) keras
	touch $@

.venv-lowest/made: setup.cfg tests/lowest_requirements.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest_requirements.py tensorflow jax compare adaptive > .venv-lowest/requirements.txt
	.venv-lowest/bin/python -m pip install --quiet -r .venv-lowest/requirements.txt $(TOOLS)
	.venv-lowest/bin/python -m pip install --quiet --no-deps -e .
	touch $@

# What Colab has, as far as it concerns us; PYTHON_COLAB may be another Python where there is no 3.12.
PYTHON_COLAB ?= python3.12

.venv-colab/made: release/colab.txt
	$(PYTHON_COLAB) -m venv .venv-colab
	.venv-colab/bin/python -m pip install --quiet -r release/colab.txt
	touch $@

.venv-prebuilt/made: release/prebuilt.txt
	$(PYTHON) -m venv .venv-prebuilt
	.venv-prebuilt/bin/python -m pip install --quiet -r release/prebuilt.txt
	touch $@

.venv-wheel/made: release/prebuilt.txt
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet -r release/prebuilt.txt
	touch $@

.venv-cibuildwheel/made:
	$(PYTHON) -m venv .venv-cibuildwheel
	.venv-cibuildwheel/bin/python -m pip install --quiet cibuildwheel
	touch $@

.venv-exports/made: setup.cfg
	$(PYTHON) -m venv .venv-exports
	.venv-exports/bin/python -m pip install --quiet torch==2.13.0
	.venv-exports/bin/python -m pip install --quiet -e '.[tensorflow,torch,exports]' pytest pytest-timeout
	touch $@

.venv-tfa/made: tests/peers/requirements_tfa.txt
	$(PYTHON) -m venv .venv-tfa
	.venv-tfa/bin/python -m pip install --quiet -r tests/peers/requirements_tfa.txt
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
