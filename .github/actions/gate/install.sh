#!/usr/bin/env bash
# Installs torch where there is none, then attnprof: of this action's own commit, or what GATE_PACKAGE names.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
package=${GATE_PACKAGE:-$here}
index=()
if [[ -n ${GATE_TORCH_INDEX:-} ]]; then
  index=(--index-url "$GATE_TORCH_INDEX")
fi

if ! python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
  python -m pip install --quiet "${index[@]}" -- torch
fi
if [[ -d $package ]]; then
  package="$package[plots]"
fi
python -m pip install --quiet -- "$package"
