#!/bin/bash
# Renders install.yaml with images by digest: render-install.sh IMAGES > install.yaml. IMAGES is the
# file that push-images.sh wrote. Needs kubectl.
set -euo pipefail

images=$(realpath "${1:?usage: render-install.sh IMAGES}")
cd "$(dirname "$0")/../.."
overlay=$(mktemp -d -p deploy .release-XXXXXX)
trap 'rm -rf "$overlay"' EXIT

{
    echo 'apiVersion: kustomize.config.k8s.io/v1beta1'
    echo 'kind: Kustomization'
    echo 'resources: [../default]'
    echo 'images:'
    while read -r program reference; do
        # kustomize keeps no tag beside a digest, and none is needed.
        name=${reference%@*}
        echo "- name: ghcr.io/bootc-operator-rs/$program"
        echo "  newName: ${name%:*}"
        echo "  digest: ${reference#*@}"
    done <"$images"
} >"$overlay/kustomization.yaml"
kubectl kustomize "$overlay"
