#!/usr/bin/env bash
# Prepares a log on Google Cloud Dataflow and puts the result into the local cache.
#
#   launch/beam_dataflow.sh            run it
#   launch/beam_dataflow.sh --dry-run  print the commands and do nothing
#
# Set the variables below here or in the environment. It takes an environment with
#   pip install -e '.[beam]' 'apache-beam[gcp]' gcsfs
# the gcloud command, logged in, and a bucket in the region of the job. The image holds the same
# packages and this one; Beam's documentation of custom containers says how it is made:
#   FROM apache/beam_python3.11_sdk:2.77.0
#   COPY . /src
#   RUN pip install '/src[beam]' 'apache-beam[gcp]' gcsfs
#
# The log may lie in the bucket (LOG=gs://...): a worker copies the files that it reads to its disk.
#
# Other runners take other options in place of those from --runner on:
#   Flink: --runner=FlinkRunner --flink_master=HOST:8081 \
#          --environment_type=DOCKER --environment_config="$IMAGE"
#   Spark: --runner=PortableRunner --job_endpoint=HOST:8099 \
#          --environment_type=DOCKER --environment_config="$IMAGE"
#   (HOST:8099 is Beam's Spark job server.) The data folder must be one that all workers can write.
set -euo pipefail

CONFIG=${CONFIG:-configs/own_log.py}
LOG=${LOG:-gs://my-bucket/clicks}        # data.path of the config
OUT=${OUT:-gs://my-bucket/prepared_logs} # must not hold a prepared log yet
PROJECT=${PROJECT:-my-project}
REGION=${REGION:-europe-west1}
IMAGE=${IMAGE:-europe-docker.pkg.dev/my-project/diet/beam:latest}
WORKERS=${WORKERS:-16}           # at most
MACHINE=${MACHINE:-n2-highmem-4} # each holds the distinct values of the log
DISK_GB=${DISK_GB:-200}          # holds the files that a worker reads at a time
LOCAL=${LOCAL:-runs/beam}        # where the data set is copied to

case ${1:-} in
--dry-run) run() { printf '%q ' "$@" && echo; } ;;
"") run() { "$@"; } ;;
*) echo "usage: $0 [--dry-run]" >&2 && exit 2 ;;
esac

run python -m diet_jax.data.beam \
    --config="$CONFIG" \
    --config.data.path="$LOG" \
    --data_dir="$OUT" \
    --runner=DataflowRunner \
    --project="$PROJECT" \
    --region="$REGION" \
    --job_name=diet-jax-prepare \
    --temp_location="$OUT/tmp" \
    --sdk_container_image="$IMAGE" \
    --sdk_location=container \
    --max_num_workers="$WORKERS" \
    --machine_type="$MACHINE" \
    --disk_size_gb="$DISK_GB"
run mkdir -p "$LOCAL"
run gcloud storage cp --recursive "$OUT/prepared/1.0.0" "$LOCAL"
run python -m diet_jax.data.beam --config="$CONFIG" --load="$LOCAL/1.0.0"
