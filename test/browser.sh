#!/usr/bin/env bash
# The web page in a real browser: its tests against a mock of the agent, which
# can fail in every way, and then a look at every page of the real agent on this
# host. Screenshots go to .cache/screenshots.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
shots=$root/.cache/screenshots
mkdir -p "$shots"

cd ui
npm ci --no-audit --no-fund --loglevel=error
npm run --silent types
# Setup's node, if this machine's is too old; npm keeps to the system's, which
# knows the certificates that this machine trusts.
PATH=$root/.cache/node/bin:$PATH
GHOSTLIGHT_SHOTS="$shots/mock" timeout 900 npm test --silent
cd ..

if [ "$(id -u)" != 0 ]; then
	echo "browser: the real agent needs root; only the mock was looked at"
	exit 0
fi
data=$(mktemp -d)
port=$((20000 + RANDOM % 10000))
bin/ghostlight run --listen "127.0.0.1:$port" --socket off --data "$data" --log-level warn &
agent=$!
trap 'kill $agent; wait $agent || true; rm -rf "$data"' EXIT
for _ in $(seq 150); do
	curl -fs -o /dev/null "http://127.0.0.1:$port/healthz" && break
	sleep 0.2
done
for _ in $(seq 20); do curl -s -o /dev/null "http://127.0.0.1:$port/api/v1/status"; done
curl -s "http://127.0.0.1:1" || true # a refused connection
cd ui
GHOSTLIGHT_URL="http://127.0.0.1:$port" GHOSTLIGHT_SHOTS="$shots/real" timeout 600 \
	node --test --test-force-exit --test-timeout=180000 test/pages.test.mjs
