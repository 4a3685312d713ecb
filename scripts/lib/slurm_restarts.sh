# Sourced by scripts/train.sbatch: whether a job is queued again, and how often.
# shellcheck shell=bash disable=SC2154
#
# RUN/launch/starts.log has a line a start and one an end: time, job, checkpoint, what happened.

# What a failure of a machine, and not of the run, leaves in the training's output.
MACHINE_FAILURES=(
    'NCCL error' 'ncclSystemError' 'ncclRemoteError' 'ncclUnhandledCudaError' 'ncclInternalError'
    'DistBackendError' 'Watchdog caught collective operation timeout' 'Timed out .* waiting for .* operation to complete'
    'gloo.*(Connection closed by peer|Connection reset by peer|Read timeout)'
    'uncorrectable (ECC|NVLink) error' 'GPU has fallen off the bus' 'CUDA-capable device\(s\) is/are busy or unavailable'
    'NodeDiedError' 'its node has died' 'node .* (has been marked dead|died|was terminated)' 'missed too many heartbeats'
    'The actor died because its (node|owner)' 'Failed to connect to GCS' 'srun: error: .*(Node failure|node fail)'
)

note() { printf '%s %s.%s %s %s\n' "$(date -Iseconds)" "$this_job" "${SLURM_RESTART_COUNT:-0}" "$1" "$2" >>"$run_folder/launch/starts.log"; }

# starts_at CHECKPOINT: how often this job has started from it.
starts_at() {
    awk -v job="$this_job" -v checkpoint="$1" '
        { sub(/\.[0-9]+$/, "", $2) }
        $2 == job && $3 == checkpoint && $4 == "started" { count++ }
        END { print count + 0 }' "$run_folder/launch/starts.log" 2>/dev/null || echo 0
}

may_start_again() { (($(starts_at "$(last_checkpoint)") <= ${REQUEUE_LIMIT:-3})); }

# Counted at the start, so that those count as well that SLURM queues again because this node has failed.
record_start() {
    local checkpoint
    checkpoint="$(last_checkpoint)"
    may_start_again || fail "job $this_job has started $(starts_at "$checkpoint") times at checkpoint $checkpoint without another one" \
        "see $run_folder/launch, then submit it again; REQUEUE_LIMIT allows more"
    note "$checkpoint" started
}

# machine_failure: the first line of the training's output that tells of one.
machine_failure() {
    local pattern
    pattern="$(IFS='|' && echo "${MACHINE_FAILURES[*]}")"
    grep -m1 -E "$pattern" "$logs/training.log" 2>/dev/null | cut -c1-300
}

# queue_again REASON: the end of this start.
queue_again() {
    local checkpoint
    trap '' USR1 USR2
    stop_all
    checkpoint="$(last_checkpoint)"
    if ! may_start_again; then
        note "$checkpoint" "not queued again: $1"
        echo "error: $1; not queued again, since the job has started $(starts_at "$checkpoint") times at checkpoint $checkpoint" >&2
        exit 1
    fi
    note "$checkpoint" "queued again: $1"
    echo "queued again at checkpoint $checkpoint: $1"
    scontrol requeue "$this_job"
    exit 0
}

# end_of_training STATUS: why it ended says what becomes of the job.
end_of_training() {
    local cause
    end_within 10 "$writer" || true
    [[ "$time_is_up" == false ]] || queue_again "the time limit"
    if (($1 != 0 && $1 != 2)); then # 2: the configuration cannot run
        [[ ! -e "$logs/hung" ]] || queue_again "$(cat "$logs/hung")"
        [[ ! -e "$logs/lost" ]] || queue_again "lost node $(paste -sd ' ' "$logs/lost")"
        cause="$(machine_failure)" || true
        [[ -z "$cause" ]] || queue_again "$cause"
    fi
    note "$(last_checkpoint)" "ended with status $1"
    exit "$1"
}
