#!/bin/sh
# Builds and runs the tests of ops/kernels under AddressSanitizer and UndefinedBehaviorSanitizer: run.sh [folder [family]]
set -e
cd "$(dirname "$0")/../.."
out=${1:-build/native}
only=$2
mkdir -p "$out"
flags="-std=c++17 -O1 -g -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fsanitize=address,undefined -fno-sanitize-recover"
case $(uname -m) in x86_64) flags="$flags -DKLR_X86"; x86=1 ;; *) x86= ;; esac

# run family instruction-sets
run() {
  [ -z "$only" ] || [ "$only" = "$1" ] || return 0
  objects=
  for set in baseline ${x86:+$2}; do
    name=$set
    case $set in
      avx2) extra=-mavx2 ;;
      avx2fma) extra="-mavx2 -mfma" name=avx2 ;;
      avx512) extra=-march=x86-64-v4 ;;
      avx512vnni) extra="-march=x86-64-v4 -mavx512vnni" ;;
      *) extra= ;;
    esac
    ${CXX:-g++} $flags $extra -DKLR_ISA=$name -c "ops/kernels/$1_loops.cc" -o "$out/$1_$set.o"
    objects="$objects $out/$1_$set.o"
  done
  ${CXX:-g++} $flags "ops/kernels/$1_dispatch.cc" "tests/native/test_$1.cc" $objects -o "$out/test_$1"
  "$out/test_$1"
}

run update "avx2 avx512"
run matmul "avx2 avx512vnni"
run quantize "avx2 avx512"
run orthogonalize "avx2fma avx512"

[ -z "$only" ] || exit 0

# What CUDA would compute, done on the host with the same code, against the quantizers that were just built.
${CXX:-g++} $flags -pthread ops/kernels/quantize_dispatch.cc tests/native/test_quantize_cuda.cc "$out"/quantize_*.o -o "$out/test_quantize_cuda"
"$out/test_quantize_cuda"

# The updates of CUDA in the same way: launches are calls, and a thread of a block is one of the host.
sed -e 's/<cuda_runtime.h>/"cuda_on_host.h"/' -e 's/\([a-z]*\(<[A-Za-z, ]*>\)\{0,1\}\)<<<\([^,]*\), \([^,]*\), 0, stream>>>(/launch_on_host(\1, \3, \4, stream, /' \
  custom_ops_cuda/update.cu > "$out/update_on_host.cc"
${CXX:-g++} $flags -Wno-sign-compare -pthread -Icustom_ops_cuda -Itests/native ops/kernels/update_dispatch.cc "$out/update_on_host.cc" \
  tests/native/test_update_cuda.cc "$out"/update_*.o -o "$out/test_update_cuda"
"$out/test_update_cuda"
