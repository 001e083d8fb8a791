#!/bin/bash
# Lets bink run virtual machines on a hosted Ubuntu runner, without root: KVM and podman for this
# user, and none of the confinement that keeps passt from starting a machine.
set -euo pipefail

if [[ "${GITHUB_ACTIONS:-}" != true ]]; then
    echo "this changes kernel settings and AppArmor of the machine; it is for hosted runners only" >&2
    exit 1
fi

stop_apparmor() {
    sudo systemctl disable --now apparmor 2>/dev/null || true
    sudo aa-teardown 2>/dev/null || true
}

# Before the packages and after them: passt's package loads its profile again.
stop_apparmor
sudo apt-get update -q
sudo apt-get install -qy podman passt skopeo uidmap qemu-utils
stop_apparmor
sudo sysctl -q kernel.apparmor_restrict_unprivileged_userns=0
sudo sysctl -q net.ipv6.conf.all.disable_ipv6=1
# A package may have brought udev's own mode back.
sudo chmod 666 /dev/kvm
[[ -e /dev/fuse ]] && sudo chmod 666 /dev/fuse
echo 1 | sudo tee /sys/kernel/mm/ksm/run >/dev/null

if ! grep -q "^$USER:" /etc/subuid; then
    sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "$USER"
fi
config="$HOME/.config/containers"
mkdir -p "$config"
printf 'unqualified-search-registries = ["docker.io"]\n' >"$config/registries.conf"
printf '[containers]\napparmor_profile = "unconfined"\n' >"$config/containers.conf"
systemctl --user start podman.socket
podman version
