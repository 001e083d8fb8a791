#!/bin/bash
# Builds bink at the commit that the tests are written for: build-bink.sh FOLDER. The program is
# then FOLDER/bink. Needs Go, a C compiler and the network.
set -euo pipefail

# The first one with a registry that pods reach by name.
commit=3ddb9da3b6e33f5dadd48abdb15ed550bbfe4f31
folder=${1:?usage: build-bink.sh FOLDER}

if [[ "${GITHUB_ACTIONS:-}" == true ]]; then
    sudo apt-get update -q
    sudo apt-get install -qy libgpgme-dev libbtrfs-dev libdevmapper-dev pkg-config
fi
git init -q "$folder"
git -C "$folder" fetch -q --depth 1 https://github.com/bootc-dev/bink "$commit"
git -C "$folder" checkout -q FETCH_HEAD
make -C "$folder" build-bink
"$folder/bink" version
