#!/bin/bash
# Makes images FROM scratch of static programs and pushes them, one index over all architectures:
# push-images.sh FOLDER REGISTRY VERSION. FOLDER is what build-binaries.sh filled, REGISTRY such as
# ghcr.io/owner. Writes FOLDER/images: a line `program reference@digest` for each.
#
# The same programs give the same digests. Needs crane, with a login where the registry wants one;
# CRANE_FLAGS such as --insecure go to each of its calls.
set -euo pipefail

folder=${1:?usage: push-images.sh FOLDER REGISTRY VERSION}
registry=${2:?usage: push-images.sh FOLDER REGISTRY VERSION}
version=${3:?usage: push-images.sh FOLDER REGISTRY VERSION}
read -ra flags <<<"${CRANE_FLAGS:-}"
source=https://github.com/${GITHUB_REPOSITORY:-bootc-operator-rs/bootc-operator}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the layer says of users and times is always the same.
layer() {
    tar --create --file "$2" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        --directory "$(dirname "$1")" "$(basename "$1")"
}

# One architecture of one program: an image with a single layer; prints its digest.
push_one() {
    local program=$1 arch=$2 image=$registry/$1:$3-$2 user=0:0
    [[ "$program" == bootc-operator ]] && user=65532:65532
    layer "$folder/$arch/$program" "$work/$program-$arch.tar"
    crane append "${flags[@]}" --oci-empty-base --platform "linux/$arch" \
        --new_layer "$work/$program-$arch.tar" --new_tag "$image" >&2
    crane mutate "${flags[@]}" "$image" --tag "$image" --set-platform "linux/$arch" \
        --entrypoint "/$program" --user "$user" \
        --label "org.opencontainers.image.source=$source" \
        --label "org.opencontainers.image.version=$version" \
        --label "org.opencontainers.image.licenses=Apache-2.0" >&2
    crane digest "${flags[@]}" "$image"
}

: >"$folder/images"
for program in bootc-operator bootc-nodeagent; do
    image=$registry/$program:$version
    manifests=()
    for arch in amd64 arm64; do
        [[ -e "$folder/$arch/$program" ]] || continue
        manifests+=(--manifest "$registry/$program@$(push_one "$program" "$arch" "$version")")
    done
    crane index append "${flags[@]}" "${manifests[@]}" --tag "$image" >&2
    echo "$program $image@$(crane digest "${flags[@]}" "$image")" >>"$folder/images"
done
cat "$folder/images"
