#!/bin/sh
# The tests of ops/kernels once more on aarch64, emulated by QEMU, under UndefinedBehaviorSanitizer, and the same bits as here.
# Debian: apt-get install g++-aarch64-linux-gnu qemu-user
set -e
cd "$(dirname "$0")/../.."
out=${1:-build/native-aarch64}
mkdir -p "$out"
flags="-std=c++17 -O1 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -DKL_ISA=baseline"

for family in update matmul quantize; do
  sources="ops/kernels/${family}s.cc ops/kernels/$family.cc tests/native/test_$family.cc"
  aarch64-linux-gnu-g++ $flags -static -fsanitize=undefined -fno-sanitize-recover $sources -o "$out/test_$family"
  qemu-aarch64 "$out/test_$family"
done
