#!/usr/bin/env bash
# Runs one job as N processes on this machine; with GPUs each process has the one of its number.
#
#   launch/local.sh N --config=configs/quickstart.py --workdir=runs/quickstart [flags of a run]
#   launch/local.sh --dry-run N ...   print the commands and do nothing
#   PYTHON=/path/to/python            in the environment: another interpreter
#
# If one process ends with an error the others end too. A SIGTERM goes to all: they save, and the
# same command goes on. The exit status is the first one that is not 0.
set -euo pipefail

dry=
if [ "${1:-}" = --dry-run ]; then dry=yes && shift; fi
if ! [ "${1:-}" -gt 0 ] 2>/dev/null; then
    echo "usage: $0 [--dry-run] N [flags of a run]" >&2
    exit 2
fi
n=$1 && shift
port=${PORT:-$((20000 + RANDOM % 20000))}
# That of `make`, if it is there.
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)

members=()
for ((i = 0; i < n; i++)); do
    command=("$python" -m diet_jax.main "$@" --coordinator=127.0.0.1:"$port" --num_processes="$n"
        --process_id="$i")
    if [ "$gpus" -gt 0 ]; then command=(env CUDA_VISIBLE_DEVICES="$i" "${command[@]}"); fi
    if [ -n "$dry" ]; then
        printf '%q ' "${command[@]}" && echo
    else
        "${command[@]}" &
        members+=($!)
    fi
done
if [ -n "$dry" ]; then exit 0; fi

trap 'kill -TERM "${members[@]}" 2>/dev/null || true' TERM INT USR1
status=0
for member in "${members[@]}"; do
    ended=0
    wait "$member" || ended=$?
    # A signal ends the wait, not the process.
    while kill -0 "$member" 2>/dev/null; do ended=0 && wait "$member" || ended=$?; done
    if [ "$status" -eq 0 ]; then status=$ended; fi
done
exit "$status"
