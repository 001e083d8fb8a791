#!/bin/bash
# Makes room on a hosted runner: the bed's parts and the build want about 25 GB, and the
# image brings SDKs that nothing here uses.
set -euo pipefail

if [[ "${GITHUB_ACTIONS:-}" != true ]]; then
    echo "this removes SDKs of the machine that it runs on; it is for hosted runners only" >&2
    exit 1
fi
before=$(df --output=avail -BG / | tail -n 1)
sudo rm -rf /usr/local/lib/android /usr/share/dotnet /opt/ghc /usr/local/.ghcup \
    /usr/share/swift /opt/hostedtoolcache/CodeQL /usr/local/share/powershell
echo "room on /: ${before} before, $(df --output=avail -BG / | tail -n 1) now"
