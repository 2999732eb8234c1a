#!/usr/bin/env bash
# Every test. The end-to-end tests use the binary and the image that make has built.
# A skipped end-to-end test is a failure.
set -uo pipefail
export YAKUMO_BINARY="$PWD/bin/yakumo" YAKUMO_MINI="$PWD/.yakumo/images/yakumo-mini.qcow2"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail=0

run() { # name, log, command…
  local name=$1 log=$out/$2 began=$SECONDS
  shift 2
  if "$@" >"$log" 2>&1; then
    printf '%-34s ok    %4d s\n' "$name" $((SECONDS - began))
  else
    fail=1
    printf '%-34s FAIL  %4d s\n' "$name" $((SECONDS - began))
    # What failed comes first: the end of a long log may be all daemons' own.
    grep -B 40 -E '^\s*--- FAIL' "$log" | grep -v -e '--- PASS' -e '=== RUN' | head -n 200
    grep -v -e '^ok ' -e 'no test files' "$log" | tail -n 100
  fi
}

unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
  echo "not formatted: $unformatted"
  fail=1
fi
run 'go vet' vet go vet ./...
# Packages that start daemons or boot guests use much of the machine: two at a time, then the lab alone. Tests that say
# that they may run beside others of their package wait most of the time, so more of them do than there are processors.
units=$(go list ./... | grep -v '/test/e2e$')
run 'unit and daemon tests' unit go test -p 2 -parallel 4 -timeout 20m $units
run 'end-to-end tests' e2e go test -count=1 -v -timeout 60m ./test/e2e
if grep -E '^\s*--- SKIP' "$out/e2e"; then
  echo 'an end-to-end test was skipped'
  fail=1
fi
passed=$(grep -cE '^\s*--- PASS' "$out/e2e")
echo "end-to-end: $passed passed"
cat "$out/unit" | grep -E '^(ok|FAIL|---)' | head -n 100
if [ $fail -ne 0 ]; then
  echo "tests FAILED"
  exit 1
fi
echo "all tests passed"
