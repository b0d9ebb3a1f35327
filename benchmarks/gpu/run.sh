#!/bin/sh
# Checks the compiled updates and quantizers on this machine's GPU and prints their speed. Needs a CUDA toolkit, and Python with
# keras, JAX for CUDA and PyTorch. Without a GPU it checks the same on the CPU.
set -e
cd "$(dirname "$0")/../.."
export KERAS_BACKEND=jax KERAS_LRSCHED_FUSED=1 PYTHONPATH=.
python benchmarks/gpu/check.py
python benchmarks/gpu/check_quantize.py
python benchmarks/gpu/speed.py "$@"
python benchmarks/gpu/speed_quantize.py "$@"
