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
  tag=$version
  torch=
  case $image in
    steps) extras=sign about='Fetches ModelKits for a workload and publishes what it made' ;;
    trainer)
      extras='sign qlora' about='Fine-tunes language models, and lets them answer' torch=${TORCH:-cuda}
      # bitsandbytes, for QLoRA, needs a GPU.
      if [[ $torch == cpu ]]; then extras='sign workload' tag+=-cpu; fi ;;
    *) echo "Error: there is no image '$image'; there are steps and trainer" >&2; exit 2 ;;
  esac
  reference=${REGISTRY:+$REGISTRY/}airflow-provider-kitops/$image:$tag
  "$ENGINE" build "${options[@]}" --file images/workload.Dockerfile \
    --build-arg "EXTRAS=$extras" --build-arg "TORCH=$torch" \
    --label "org.opencontainers.image.title=airflow-provider-kitops $image" \
    --label "org.opencontainers.image.description=$about" \
    --tag "$reference" .
  # shellcheck disable=SC2086 # words
  if [[ -n ${REGISTRY:-} ]]; then "$ENGINE" push ${PUSH_OPTIONS:-} "$reference"; fi
  echo "$reference"
done
