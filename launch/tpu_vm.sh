#!/usr/bin/env bash
# A job on a slice of TPU VMs that is asked for as a queued resource.
#
#   launch/tpu_vm.sh            ask for it, wait, install HEAD on all hosts, run the job
#   launch/tpu_vm.sh --dry-run  print the commands and do nothing
#
# Set the variables below here or in the environment. It takes the gcloud command, logged in, and
# copies what is committed, HEAD. The status is 1 if the resource is refused or taken back. The
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
SOURCE=${TMPDIR:-/tmp}/diet_jax.tar.gz

case ${1:-} in
--dry-run) run() { printf '%q ' "$@" && echo; } ;;
"") run() { "$@"; } ;;
*) echo "usage: $0 [--dry-run]" >&2 && exit 2 ;;
esac
tpus() { run gcloud compute tpus "$1" "${@:2}" --project="$PROJECT" --zone="$ZONE"; }
everywhere() { tpus tpu-vm ssh "$NAME" --worker=all --command="$1"; }

run git -C "$(dirname "$0")/.." archive --output="$SOURCE" HEAD
tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$VERSION" --spot
until [ "${1:-}" = --dry-run ]; do
    # A describe that fails is asked again: the wait may take days.
    state=$(tpus queued-resources describe "$NAME" --format='value(state.state)' || true)
    case $state in
    ACTIVE) break ;;
    FAILED | SUSPENDED) echo "$NAME is $state; delete it and call this again" >&2 && exit 1 ;;
    esac
    sleep 30
done
tpus tpu-vm scp "$SOURCE" "$NAME:diet_jax.tar.gz" --worker=all
everywhere 'mkdir -p diet_jax && tar -xzf diet_jax.tar.gz -C diet_jax'
# uv brings a Python; that of the images is too old, and has no venv.
everywhere 'curl -LsSf https://astral.sh/uv/install.sh | sh'
everywhere 'cd diet_jax && ~/.local/bin/uv venv --python 3.12'
everywhere 'cd diet_jax && ~/.local/bin/uv pip install --quiet --editable ".[tpu]"'
# JAX finds the processes by itself.
everywhere "cd diet_jax && .venv/bin/python -m diet_jax.main $FLAGS"
