#!/usr/bin/env bash
# Regenerates everything that is generated and fails if a byte differs.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(git status --porcelain)
go generate ./internal/...
if [ -f ui/package.json ]; then
	(cd ui && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build)
fi
after=$(git status --porcelain)
if [ "$before" != "$after" ]; then
	echo "generated files are out of date; run make generate and commit:"
	diff <(echo "$before") <(echo "$after") || true
	git diff --stat
	exit 1
fi
echo "generated: in date"
