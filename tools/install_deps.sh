#!/usr/bin/env bash
# Installs the Debian packages that are missing, and nothing when none is.
#
# usage: tools/install_deps.sh [build] [test] [fuzz] [neon] [lint]      (default: build)
#
# A package counts as there when the command or header that it is wanted for is there, so tools from
# elsewhere are left alone. Works as root and through sudo. Without apt-get it names what is missing.
set -euo pipefail

# package:command, or package:/header below an include directory, or package:/usr/src/file
packages() {
  case "$1" in
    build)
      echo g++:g++ cmake:cmake ninja-build:ninja git:git python3:python3 libfmt-dev:/fmt/core.h \
        nlohmann-json3-dev:/nlohmann/json.hpp libcli11-dev:/CLI/CLI.hpp libssl-dev:/openssl/evp.h libgtest-dev:/gtest/gtest.h
      ;;
    test) echo ccache:ccache npm:npm ;;
    fuzz) echo clang:clang++ libclang-rt-14-dev:/fuzzer/FuzzedDataProvider.h ;;
    neon)
      echo g++-aarch64-linux-gnu:aarch64-linux-gnu-g++ qemu-user:qemu-aarch64 \
        googletest:/usr/src/googletest/CMakeLists.txt
      ;;
    lint) echo clang-format:clang-format clang-tidy:clang-tidy ;;
    *)
      echo "install_deps: unknown group '$1' (build, test, fuzz, neon, lint)" >&2
      return 2
      ;;
  esac
}

is_there() {
  case "$1" in
    /usr/src/*) [ -e "$1" ] ;;
    /*)
      local dir
      for dir in /usr/include /usr/local/include /usr/lib/llvm-*/lib/clang/*/include \
        ${CPATH:+${CPATH//:/ }}; do
        [ -e "$dir$1" ] && return 0
      done
      return 1
      ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing=()
for group in "${@:-build}"; do
  list=$(packages "$group")
  for entry in $list; do
    is_there "${entry#*:}" || missing+=("${entry%%:*}")
  done
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_deps: this machine has no apt-get; please install what these Debian packages hold:" >&2
  echo "  ${missing[*]}" >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1; then
    echo "install_deps: not root and no sudo; as root, please run:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

echo "install_deps: installing ${missing[*]}" >&2
apt update >&2 || echo "install_deps: apt-get update failed; trying with the lists at hand" >&2
apt install -y --no-install-recommends "${missing[@]}" >&2
