#!/usr/bin/env bash
# Makes .libtorch: the headers and CPU libraries of the libtorch that tch is
# built against, taken from the PyPI wheel so that pip is all it needs.
#
# The files live in a cache folder outside the checkout (FUSELINE_CACHE,
# XDG_CACHE_HOME/fuseline or ~/.cache/fuseline), so a second clone fetches
# nothing. A LIBTORCH already set in the environment is used as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.11.0
CUDART=13.0.96
CUPTI=13.0.85

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 3; }

command -v cargo >/dev/null || fail "cargo is not installed; see https://rustup.rs"
command -v c++ >/dev/null || fail "no C++ compiler (c++); install g++ or clang"

if [ -n "${LIBTORCH:-}" ]; then
  [ -e "$LIBTORCH/include/torch/csrc/api/include/torch/torch.h" ] ||
    fail "LIBTORCH=$LIBTORCH has no include/torch/csrc/api/include/torch/torch.h; unset it, or name a libtorch $TORCH"
  say "using LIBTORCH=$LIBTORCH"
  exit 0
fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) platform=manylinux_2_28_x86_64 ;;
  Linux-aarch64) platform=manylinux_2_28_aarch64 ;;
  Darwin-arm64) platform=macosx_14_0_arm64 ;;
  *) fail "no libtorch wheel for $(uname -s) $(uname -m); set LIBTORCH to a libtorch $TORCH of your own" ;;
esac

cuda=
if [ -e /proc/driver/nvidia/version ] && [ "$(uname -s)" = Linux ]; then cuda=-cuda; fi
cache=${FUSELINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/fuseline}
root=$cache/libtorch-$TORCH-$(uname -m)$cuda

wheel() { # folder, then pip requirements
  local into=$1
  shift
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.12 --implementation cp \
    --platform "$platform" --platform "${platform/2_28/2_27}" --platform "${platform/2_28/2_25}" \
    --platform "${platform/manylinux_2_28/manylinux2014}" --platform any \
    --dest "$into" "$@"
}

unpack() { # wheel, folder; pip is there, unzip may not be
  python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])' "$1" "$2"
}

if [ ! -e "$root/complete" ]; then
  command -v python3 >/dev/null || fail "python3 with pip is needed to fetch libtorch; install it or set LIBTORCH"
  mkdir -p "$cache"
  scratch=$(mktemp -d "$cache/setup.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
  say "fetching torch $TORCH (about 530 MB, once) into $cache"
  wheel "$scratch/wheels" "torch==$TORCH" || fail "pip could not download torch==$TORCH; check the network, or set LIBTORCH"
  unpack "$scratch"/wheels/torch-*.whl "$scratch/x"
  mkdir -p "$scratch/root/lib"
  mv "$scratch/x/torch/include" "$scratch/root/include"
  if [ "$(uname -s)" = Darwin ]; then
    mv "$scratch"/x/torch/lib/*.dylib "$scratch/root/lib/"
  else
    mv "$scratch"/x/torch/lib/libtorch_cpu.so "$scratch"/x/torch/lib/libc10.so "$scratch"/x/torch/lib/libgomp* "$scratch/root/lib/"
    if [ -e "$scratch/x/torch.libs" ]; then mv "$scratch"/x/torch.libs/* "$scratch/root/lib/"; fi
    if [ "$(uname -m)" = x86_64 ]; then
      # libtorch_cpu of this wheel needs these two even where there is no GPU.
      wheel "$scratch/wheels" "nvidia-cuda-runtime==$CUDART" "nvidia-cuda-cupti==$CUPTI" ||
        fail "pip could not download the CUDA runtime that libtorch_cpu links to"
      for each in "$scratch"/wheels/nvidia_*.whl; do unpack "$each" "$scratch/n"; done
      mv "$scratch"/n/nvidia/cu13/lib/libcudart.so.13 "$scratch"/n/nvidia/cu13/lib/libcupti.so.13 "$scratch/root/lib/"
    fi
    if [ -n "$cuda" ]; then
      say "an NVIDIA driver is here: fetching the CUDA libraries too (about 2 GB)"
      mv "$scratch"/x/torch/lib/libtorch_cuda*.so "$scratch"/x/torch/lib/libc10_cuda.so "$scratch"/x/torch/lib/libtorch_nvshmem.so \
        "$scratch"/x/torch/lib/libcaffe2_nvrtc.so "$scratch/root/lib/"
      python3 -c 'import sys, zipfile, re
meta = next(n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.endswith(".dist-info/METADATA"))
for line in zipfile.ZipFile(sys.argv[1]).read(meta).decode().splitlines():
    found = re.match(r"Requires-Dist: (nvidia-[\w-]+)(\[[^]]*\])?\s*==\s*([\w.]+)", line)
    if found: print(f"{found[1]}=={found[3]}")' "$scratch"/wheels/torch-*.whl >"$scratch/cuda.txt"
      wheel "$scratch/cuda" -r "$scratch/cuda.txt" || fail "pip could not download the CUDA libraries of torch $TORCH"
      for each in "$scratch"/cuda/*.whl; do unpack "$each" "$scratch/c"; done
      find "$scratch/c/nvidia" -path '*/lib/*.so*' -exec mv -n {} "$scratch/root/lib/" \;
    fi
    # A linker script instead of the wheel's libtorch.so keeps the CUDA
    # libraries out of the link; they are opened at run time where they are.
    echo 'INPUT(libtorch_cpu.so libc10.so)' >"$scratch/root/lib/libtorch.so"
  fi
  touch "$scratch/root/complete"
  # Another clone may have finished first: its folder is as good as ours.
  mv -T "$scratch/root" "$root" 2>/dev/null || [ -e "$root/complete" ] || fail "could not move libtorch to $root"
fi

ln -sfn "$root" .libtorch
say "libtorch $TORCH is in $root"
