#!/usr/bin/env bash
# Runs `attnprof gate` on what the GATE_ variables say, keeps its reports, and ends with its exit code.
set -euo pipefail

folder=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/attnprof-gate
options=()

# each OPTION TEXT: OPTION=LINE for every line of TEXT that is not empty; without an OPTION the lines themselves.
each() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    line=${line%$'\r'}
    if [[ -n ${line//[[:space:]]/} ]]; then
      options+=("${1:+$1=}$line")
    fi
  done <<<"$2"
}

each --baseline "${GATE_BASELINE:-}"
each --base-ref "${GATE_BASE_REF:-}"
each --allow-import "${GATE_ALLOW_IMPORT:-}"
each --tol "${GATE_TOL:-}"
each "" "${GATE_ARGS:-}"
mkdir -p "$folder"

code=0
# GitHub documents annotations as a thing of stdout; attnprof writes them to stderr.
attnprof gate --report-json "$folder/gate.json" --junit "$folder/gate.xml" --markdown "$folder/gate.md" \
  "${options[@]}" -- "$GATE_SPEC" 2>&1 || code=$?

{
  echo "exit-code=$code"
  echo "folder=$folder"
} >>"${GITHUB_OUTPUT:-/dev/stdout}"

if [[ ${GATE_HTML:-true} == true && $code != 2 ]]; then
  options=()
  each --allow-import "${GATE_ALLOW_IMPORT:-}"
  attnprof run --device none --fresh --quiet --format html --out "$folder/run" "${options[@]}" -- "$GATE_SPEC" >/dev/null ||
    echo "::warning::The HTML report was not made. The gate has its result."
fi
exit "$code"
