#!/bin/bash
# Puts together what a release consists of: release-files.sh FOLDER OUT TAG. FOLDER holds the
# programs and the file `images`; OUT gets install.yaml, the programs, bills of materials and
# checksums of them all; the changelog is FOLDER/changelog.md. Needs kubectl and cargo-cyclonedx.
set -euo pipefail

folder=$(realpath "${1:?usage: release-files.sh FOLDER OUT TAG}")
out=$(realpath -m "${2:?usage: release-files.sh FOLDER OUT TAG}")
tag=${3:?usage: release-files.sh FOLDER OUT TAG}
cd "$(dirname "$0")/../.."
mkdir -p "$out"

.github/scripts/render-install.sh "$folder/images" >"$out/install.yaml"
.github/scripts/changelog.sh "$tag" >"$folder/changelog.md"
for arch in amd64 arm64; do
    for program in "$folder/$arch"/*; do
        [[ -e "$program" ]] && cp "$program" "$out/$(basename "$program")-linux-$arch"
    done
done
# One for each program: what is linked into it, with versions, sources and licences.
cargo cyclonedx --format json --describe binaries --target all
for program in bootc-operator bootc-nodeagent; do
    find operator nodeagent -maxdepth 1 -name "${program}_bin.cdx.json" \
        -exec mv {} "$out/$program.cdx.json" \;
    [[ -s "$out/$program.cdx.json" ]] || { echo "no bill of materials for $program" >&2; exit 1; }
done
find . -name '*.cdx.json' -not -path './target/*' -not -path "$out/*" -delete
cd "$out"
sha256sum -- * >../checksums.txt && mv ../checksums.txt .
cat checksums.txt
