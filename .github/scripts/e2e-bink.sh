#!/bin/bash
# Runs the tests on whole clusters with real bootc virtual machines: e2e-bink.sh BINK [FILTER].
# BINK is the program. Needs what setup-bink.sh sets up, Rust with the musl target, and skopeo.
set -euo pipefail
cd "$(dirname "$0")/../.."

bink=$(realpath "${1:?usage: e2e-bink.sh BINK [FILTER]}")
shift
logs=${ARTIFACTS:-target/e2e-logs}
disk=ghcr.io/bootc-dev/bink/node:v1.35-fedora-44-disk
mkdir -p "$logs"
logs=$(realpath "$logs")

# The disk's labels name the bootc image that is on it. It goes into the clusters' registry
# unchanged, or hosts would report another digest than they were installed from.
podman pull -q "$disk"
label() { podman inspect --format "{{ index .Labels \"$1\" }}" "$disk"; }
image=$(label bink.bootc-image)
digest=$(label bink.bootc-image-digest)
"$bink" registry start
until curl -fso /dev/null http://localhost:5000/v2/; do sleep 1; done
skopeo copy --preserve-digests --dest-tls-verify=false \
    "docker://${image%%[:@]*}@$digest" docker://localhost:5000/e2e/os:seed
pushed=$(skopeo inspect --tls-verify=false --format '{{.Digest}}' docker://localhost:5000/e2e/os:seed)
if [[ "$pushed" != "$digest" ]]; then
    echo "the registry has $pushed, and the disk was made from $digest" >&2
    exit 1
fi

# What is left of a cluster whose test was killed goes too.
stop_all() {
    local name
    for name in $(podman ps -a --format '{{ index .Labels "bink.cluster-name" }}' | sort -u); do
        "$bink" --cluster-name "$name" node list >>"$logs/nodes.txt" 2>&1 || true
        "$bink" --cluster-name "$name" cluster stop --force --remove-data || true
        podman ps -aq --filter "label=bink.cluster-name=$name" | xargs -r podman rm -f
        podman volume rm -f "$name-cluster-keys" >/dev/null
        podman network rm -f "$name" >/dev/null
    done
}
trap stop_all EXIT

# One cluster at a time: three machines fill a runner.
BINK_PATH=$bink E2E_NODE_DISK=$disk E2E_OS_SEED="localhost:5000/e2e/os@$digest" \
    cargo test --locked -p e2e-tests --test e2e -- --test-threads 1 "$@" 2>&1 | tee "$logs/tests.txt"
