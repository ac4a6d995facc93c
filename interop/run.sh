#!/usr/bin/env bash
# Lets the official SDKs for Node, Python and Go call the practice model through a running gateway, unchanged but for
# base URL and api_key, and compares what they saw with what the ledger holds.
#
#   interop/run.sh [node] [python] [go]     all three without an argument
#
# It installs what is missing (the SDKs, in the versions that package.json, requirements.txt and go.mod name) into
# interop/.work, which is not under version control, and leaves no process behind. It needs go, node 20 and python 3.11.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$here/.work
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(node python go)
mkdir -p "$work"

tmp=$(mktemp -d)
pids=()
cleanup() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# same FILE: whether what is installed is what FILE asks for.
same() { cmp -s "$1" "$work/$(basename "$1").installed"; }

install_node() {
	if ! same "$here/node/package.json" || [ ! -d "$work/node/node_modules" ]; then
		rm -rf "$work/node"
		mkdir -p "$work/node"
		cp "$here/node/package.json" "$work/node/"
		(cd "$work/node" && npm install --no-package-lock --no-audit --no-fund --omit=peer --loglevel=error)
		cp "$here/node/package.json" "$work/package.json.installed"
	fi
	ln -sfn ../.work/node/node_modules "$here/node/node_modules"
}

install_python() {
	if ! same "$here/python/requirements.txt" || [ ! -x "$work/venv/bin/python" ]; then
		rm -rf "$work/venv"
		python3 -m venv "$work/venv"
		"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/python/requirements.txt"
		cp "$here/python/requirements.txt" "$work/requirements.txt.installed"
	fi
}

wants() { [[ " ${suites[*]} " == *" $1 "* ]]; }
if wants node; then install_node; fi
if wants python; then install_python; fi

echo "building"
(cd "$here/.." && go build -o "$tmp/" ./cmd/fairlead ./interop/practiced ./interop/withheld)

# first FILE: waits until FILE has a line that matches $2, and prints that.
first() {
	local i
	for ((i = 0; i < 100; i++)); do
		if grep -m1 -oE "$2" "$1"; then return; fi
		sleep 0.1
	done
	echo "nothing like $2 came in 10 s; there is:" >&2
	cat "$1" >&2
	return 1
}

"$tmp/practiced" >"$tmp/practiced.log" 2>&1 &
pids+=($!)
model=$(first "$tmp/practiced.log" 'http://[0-9.:]+')

# What the loops of the SDKs make of answers that have lost a tool call needs no gateway.
"$tmp/withheld" -goldens "$here/../internal/dialect/testdata/withhold" >"$tmp/withheld.log" 2>&1 &
pids+=($!)
WITHHELD_URL=$(first "$tmp/withheld.log" 'http://[0-9.:]+')
export WITHHELD_URL

# The same model four times: both dialects, watched only and guarded. A further provider is not there.
provider() { printf '  %s:\n    dialect: %s\n    base_url: %s\n    api_key: %s\n    mode: %s\n' "$@"; }
{
	echo "listen: 127.0.0.1:0"
	echo "control: 127.0.0.1:0"
	echo "tools:"
	echo "  - {name: read_ticket, class: [read]}"
	echo "  - {name: send_email, class: [egress, irreversible], authority: [to]}"
	echo "providers:"
	provider watched openai "$model" the-operators-own-key observe
	provider guarded openai "$model" the-operators-own-key enforce
	provider watched-anthropic anthropic "$model" the-operators-own-key observe
	provider guarded-anthropic anthropic "$model" the-operators-own-key enforce
	provider gone openai http://127.0.0.1:9 the-operators-own-key observe
} >"$tmp/fairlead.yaml"

export FAIRLEAD_DATA=$tmp/data FAIRLEAD_KEYS=$tmp/keys FAIRLEAD_BIN=$tmp/fairlead
"$tmp/fairlead" serve --config "$tmp/fairlead.yaml" >"$tmp/fairlead.log" 2>&1 &
gateway=$!
pids+=("$gateway")
FAIRLEAD_URL=$(first "$tmp/fairlead.log" 'calls at http://[0-9.:]+' | grep -oE 'http.*')
export FAIRLEAD_URL

failed=()
# suite NAME COMMAND...: runs a suite, at most five minutes of it.
suite() {
	local name=$1
	shift
	echo
	echo "== $name through $FAIRLEAD_URL"
	timeout --kill-after=10 300 "$@" || failed+=("$name")
}

if wants node; then suite node bash -c 'cd "$1" && node --test --test-reporter=spec *.test.mjs' - "$here/node"; fi
if wants python; then suite python bash -c 'cd "$1" && ../.work/venv/bin/python -B -W ignore -m unittest' - "$here/python"; fi
if wants go; then suite go bash -c 'cd "$1" && go vet ./... && go test -count=1 ./...' - "$here/go"; fi

# What the gateway did is provable once it has ended, and the keys that did not hold were counted.
echo
kill "$gateway"
wait "$gateway" || failed+=("stopping the gateway")
"$tmp/fairlead" verify log || failed+=("verify log")
"$tmp/fairlead" tail --all --json -n 1000000 >"$tmp/events"
grep -qE '"kind":"auth\.[a-z]+/1".*revoked_key' "$tmp/events" || failed+=("the record of keys that did not hold")
if grep -l -r -E 'flk_[a-z2-7]{10}_[0-9A-Za-z]{20}|the-operators-own-key' "$tmp/data" "$tmp/fairlead.log" "$tmp/events"; then
	failed+=("a key stands where it must not")
fi

if [ ${#failed[@]} -gt 0 ]; then
	echo "FAIL: $(printf '%s; ' "${failed[@]}")"
	echo "the gateway's log ends so:"
	tail -n 20 "$tmp/fairlead.log"
	exit 1
fi
echo "ok: ${suites[*]}"
