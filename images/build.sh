#!/usr/bin/env bash
# Build the images steps and trainer, or those that are named, with docker, podman or buildah, whichever works here.
#
#   images/build.sh [steps] [trainer]
#
# The environment may say:
#   REGISTRY     host[:port][/path] to push to; images are REGISTRY/airflow-provider-kitops/NAME:VERSION
#   BASE         the base image, best by digest; else the Dockerfile's default
#   TORCH        cuda (default) or cpu: trainer without most of what only GPUs need, tagged VERSION-cpu
#   PIP_OPTIONS  more options for installing, such as --index of an index with CPU wheels
#   CA_BUNDLE    certificates to install with, besides the base image's; they are not in the image
#   ENGINE       docker, podman or buildah
#   BUILD_OPTIONS, PUSH_OPTIONS  more options for the engine
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z ${ENGINE:-} ]]; then
  if docker info >/dev/null 2>&1; then ENGINE=docker
  elif command -v podman >/dev/null; then ENGINE=podman
  elif command -v buildah >/dev/null; then ENGINE=buildah
  else echo "Error: neither docker, podman nor buildah is to be found" >&2; exit 1; fi
fi
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' airflow_provider_kitops/__init__.py)

# Options are words; bash 3, which macOS has, cannot expand an empty list.
options=(--label "org.opencontainers.image.version=$version" ${BUILD_OPTIONS:-})
# docker keeps layers by itself; OCI's format is what all registries and clients agree on.
if [[ $ENGINE != docker ]]; then options+=(--layers --format oci); fi
for name in BASE PIP_OPTIONS; do
  if [[ -n ${!name:-} ]]; then options+=(--build-arg "$name=${!name}"); fi
done
if [[ -n ${CA_BUNDLE:-} ]]; then options+=(--secret "id=ca-bundle,src=$CA_BUNDLE"); fi
export DOCKER_BUILDKIT=1

if (($# == 0)); then set -- steps trainer; fi
for image in "$@"; do
  arguments=(--file "images/$image.Dockerfile")
  tag=$version
  if [[ $image == trainer ]]; then
    arguments+=(--build-arg "TORCH=${TORCH:-cuda}")
    if [[ ${TORCH:-cuda} == cpu ]]; then tag+=-cpu; fi
  fi
  reference=${REGISTRY:+$REGISTRY/}airflow-provider-kitops/$image:$tag
  "$ENGINE" build "${options[@]}" "${arguments[@]}" --tag "$reference" .
  # shellcheck disable=SC2086 # words
  if [[ -n ${REGISTRY:-} ]]; then "$ENGINE" push ${PUSH_OPTIONS:-} "$reference"; fi
  echo "$reference"
done
