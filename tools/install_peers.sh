#!/usr/bin/env bash
# Installs the npm packages of the referee tests (tests/referee) into tests/referee/node_modules.
#
# They bring their own Node 22, since Debian 12 ships 18, and llama.cpp as node-llama-cpp packs it.
# No install script runs. A failure is reported and is not fatal here: the referee tests then skip,
# or fail where CI is set.
set -euo pipefail
cd "$(dirname "$0")/../tests/referee"

stamp=node_modules/.carat-lock
cmp -s package-lock.json "$stamp" && exit 0
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
  echo "install_peers: the referees come as Linux x86-64 programs; their tests will be skipped" >&2
  exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
  echo "install_peers: npm is not here; the referee tests will be skipped" >&2
  exit 0
fi
echo "install_peers: installing the referee packages with npm" >&2
if npm ci --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error >&2; then
  # llama.cpp's variant for processors with AMX computes Q4_0 wrong (docs/referees.md); without it
  # the next one is taken.
  rm -f node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-cpu-sapphirerapids.so
  cp package-lock.json "$stamp"
else
  echo "install_peers: npm failed; the referee tests will be skipped (they fail in CI)" >&2
fi
