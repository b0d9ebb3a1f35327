#!/bin/sh
# Checks the compiled updates and quantizers and the FP8 products on this machine's GPU and prints their speed. Needs a CUDA
# toolkit, and Python with keras, JAX for CUDA and PyTorch. Without a GPU it checks the same on the CPU, but for FP8 products.
set -e
cd "$(dirname "$0")/../.."
export KERAS_BACKEND=jax KERAS_LRSCHED_FUSED=1 PYTHONPATH=.
python benchmarks/gpu/check.py
python benchmarks/gpu/check_quantize.py
KERAS_LRSCHED_FUSED=auto python benchmarks/gpu/fp8_products.py
python benchmarks/gpu/speed.py "$@"
python benchmarks/gpu/speed_quantize.py "$@"
