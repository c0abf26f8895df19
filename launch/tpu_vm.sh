#!/usr/bin/env bash
# A job on a slice of TPU VMs that is asked for as a queued resource.
#
#   launch/tpu_vm.sh            ask for it, wait, install this folder on all hosts, run the job
#   launch/tpu_vm.sh --dry-run  print the commands and do nothing
#
# Set the variables below here or in the environment. It takes the gcloud command, logged in. The
# folder of the run has to be one that all hosts share, such as a mounted Filestore or a bucket
# mounted with gcsfuse. When Spot capacity is taken back the processes save and end; delete the
# queued resource and call this again, and the job goes on:
#   gcloud compute tpus queued-resources delete NAME --zone=ZONE --force
set -euo pipefail

NAME=${NAME:-diet-jax}
PROJECT=${PROJECT:-my-project}
ZONE=${ZONE:-us-east5-a}
TYPE=${TYPE:-v5p-128} # 64 chips on 16 hosts
VERSION=${VERSION:-v2-alpha-tpuv5}
FLAGS=${FLAGS:---config=configs/quickstart.py --workdir=/mnt/runs/quickstart}

case ${1:-} in
--dry-run) run() { printf '%q ' "$@" && echo; } ;;
"") run() { "$@"; } ;;
*) echo "usage: $0 [--dry-run]" >&2 && exit 2 ;;
esac
tpus() { run gcloud compute tpus "$1" "${@:2}" --project="$PROJECT" --zone="$ZONE"; }
everywhere() { tpus tpu-vm ssh "$NAME" --worker=all --command="$1"; }

tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" --spot
until [ "${1:-}" = --dry-run ] || [ "$(tpus queued-resources describe "$NAME" \
    --format='value(state.state)')" = ACTIVE ]; do
    sleep 30
done
tpus tpu-vm scp --recurse . "$NAME:diet_jax" --worker=all
everywhere 'cd diet_jax && python3 -m venv .venv && .venv/bin/pip install --quiet --editable ".[tpu]"'
# JAX finds the processes by itself.
everywhere "cd diet_jax && .venv/bin/python -m diet_jax.main $FLAGS"
