#!/bin/sh
# Builds and runs the tests of ops/kernels under AddressSanitizer and UndefinedBehaviorSanitizer.
set -e
cd "$(dirname "$0")/../.."
out=${1:-build/native}
mkdir -p "$out"
flags="-std=c++17 -O1 -g -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fsanitize=address,undefined -fno-sanitize-recover"
sets="baseline"
case $(uname -m) in x86_64) flags="$flags -DKL_X86"; sets="baseline avx2 avx512" ;; esac
for set in $sets; do
  case $set in avx2) extra=-mavx2 ;; avx512) extra=-march=x86-64-v4 ;; *) extra= ;; esac
  ${CXX:-g++} $flags $extra -DKL_ISA=$set -c ops/kernels/updates.cc -o "$out/$set.o"
done
${CXX:-g++} $flags ops/kernels/update.cc tests/native/test_update.cc "$out"/*.o -o "$out/test_update"
"$out/test_update"
