#!/bin/sh
# The tests of ops/kernels once more on aarch64, emulated by QEMU, under UndefinedBehaviorSanitizer; their results are to have the
# same bits as on this machine. Debian: apt-get install g++-aarch64-linux-gnu qemu-user
set -e
cd "$(dirname "$0")/../.."
out=${1:-build/native-aarch64}
mkdir -p "$out"
flags="-std=c++17 -O1 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fsanitize=undefined -fno-sanitize-recover -DKLR_ISA=baseline"

for family in update matmul quantize orthogonalize; do
  sources="ops/kernels/${family}_loops.cc ops/kernels/${family}_dispatch.cc tests/native/test_$family.cc"
  ${CXX:-g++} $flags $sources -o "$out/here"
  aarch64-linux-gnu-g++ $flags -static $sources -o "$out/there"
  "$out/here" > "$out/here.txt"
  qemu-aarch64 "$out/there" > "$out/there.txt"
  diff "$out/here.txt" "$out/there.txt"
  cat "$out/there.txt"
done
