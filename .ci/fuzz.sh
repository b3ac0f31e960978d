#!/usr/bin/env bash
# Runs every fuzz target of the module, each for the given time.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Before Go 1.27, the end of the time can be reported as a failure (golang/go#75804).
# Such a report has only these lines. A real failure comes with its input and its
# message.
fuzz() { # target, package
  go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 10x "$2" 2>&1 | tee "$out" && return
  awk '/^--- FAIL/ { getline what; getline end; over = what ~ /^ +context deadline exceeded$/ && end == "FAIL" } END { exit !over }' "$out" || return 1
  echo "time limit reached: not a failure"
}

grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do
  for target in $(grep -oE '^func Fuzz[A-Za-z0-9]+' "$file" | cut -c6-); do
    echo "== $target in $(dirname "$file")"
    fuzz "$target" "$(dirname "$file")"
  done
done
