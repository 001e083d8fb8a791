#!/bin/bash
# What has changed since the last release: changelog.sh [TAG]. Without a tag: up to now.
set -euo pipefail
cd "$(dirname "$0")/../.."

to=${1:-HEAD}
from=$(git describe --tags --abbrev=0 --match 'v*' "$to^" 2>/dev/null || true)
if [[ -n "$from" ]]; then
    echo "## Since $from"
else
    echo "## Changes"
fi
echo
git log --no-merges --reverse --format='* %s (%h)' ${from:+"$from.."}"$to"
