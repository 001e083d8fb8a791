#!/bin/bash
# Builds operator, agent and kubectl plugin as static programs for this machine's architecture, or
# for another one: build-binaries.sh FOLDER [ARCH]. They are then FOLDER/<GOARCH>/<program>.
#
# For another architecture CC_<target> must name a C compiler for it (ring has a few lines of C).
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:?usage: build-binaries.sh FOLDER [ARCH]}
arch=${2:-$(uname -m)}
case $arch in
    x86_64 | amd64) arch=x86_64 goarch=amd64 ;;
    aarch64 | arm64) arch=aarch64 goarch=arm64 ;;
    *) echo "no images are made for $arch: x86_64 or aarch64" >&2 && exit 1 ;;
esac
target=$arch-unknown-linux-musl

rustup target add "$target"
variable=CC_${target//-/_}
if [[ -z "${!variable:-}" && "$arch" == "$(uname -m)" ]]; then
    export "$variable=cc"
fi
# One after the other: built together, the agent would get every feature of a library that only
# the operator asks for.
build() {
    local package=$1 profile=$2 program=$3
    cargo build --profile "$profile" --locked --target "$target" -p "$package" --bin "$program"
    install -m 755 "${CARGO_TARGET_DIR:-target}/$target/$profile/$program" "$folder/$goarch/$program"
}
mkdir -p "$folder/$goarch"
build operator release bootc-operator
build operator release kubectl-bootc
build nodeagent small bootc-nodeagent
ls -l "$folder/$goarch"
