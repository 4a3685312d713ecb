# Sourced by scripts/train.sbatch: what it starts, waits for and stops, and the signals that reach it meanwhile.
# shellcheck shell=bash disable=SC2154
#
# USR1 comes from SLURM before the time limit; USR2 from this script's own children, which leave a file that says why:
# $logs/lost, the nodes whose Ray has ended, and $logs/hung, the step that takes too long.

started=()
current="" # what is waited for before the training
training=""
time_is_up=false
signalled=false

# wait_for PID: its status. Signals are handled meanwhile and do not end the wait.
wait_for() {
    local status
    while :; do
        signalled=false status=0
        wait "$1" || status=$?
        [[ "$signalled" == true ]] || return "$status"
    done
}

# run_step COMMAND...: here, in the background, since bash handles signals only between commands. At the time limit it is
# stopped, and the job queued again.
run_step() {
    local status=0
    if [[ "$time_is_up" == false ]]; then
        here "$@" &
        current=$!
        wait_for "$current" || status=$?
        current=""
    fi
    [[ "$time_is_up" == false ]] || queue_again "the time limit came before the training began"
    return "$status"
}

# end_within SECONDS PID...: whether all have ended by then.
end_within() {
    local deadline=$((SECONDS + $1)) pid
    shift
    for pid in "$@"; do
        while kill -0 "$pid" 2>/dev/null; do
            ((SECONDS < deadline)) || return 1
            sleep 0.2
        done
    done
}

# Ends what was started; what does not end in time is killed, since a step on a dead node never does.
stop_all() {
    ((${#started[@]})) || return 0
    kill "${started[@]}" 2>/dev/null || true
    end_within "${STOP_WAIT_S:-60}" "${started[@]}" || kill -KILL "${started[@]}" 2>/dev/null || true
    started=()
}

stop_training() {
    kill "$training" 2>/dev/null || true
    end_within "${STOP_WAIT_S:-60}" "$training" || kill -KILL "$training" 2>/dev/null || true
}

last_checkpoint() { cat "$tracker" 2>/dev/null || echo none; }

on_time_limit() {
    local before deadline
    signalled=true
    if [[ -z "$training" ]]; then
        time_is_up=true
        [[ -z "$current" ]] || kill "$current" 2>/dev/null || true
        return 0 # a bare return in a handler has the interrupted command's status
    fi
    before="$(last_checkpoint)"
    deadline=$((SECONDS + ${SAVE_WAIT_S:-780}))
    echo "time is nearly up: asking for a checkpoint (the last one is $before)"
    touch "$run_folder/save_requested"
    while ((SECONDS < deadline)) && kill -0 "$training" 2>/dev/null; do
        [[ "$(last_checkpoint)" == "$before" ]] || break
        sleep 1
    done
    rm -f "$run_folder/save_requested"
    if kill -0 "$training" 2>/dev/null; then
        time_is_up=true
        stop_training
    fi
}

on_failure_beside() {
    signalled=true
    if [[ -z "$training" ]]; then
        [[ -z "$current" ]] || kill "$current" 2>/dev/null || true
        return 0
    fi
    # A training that notices by itself says what it was doing; one that hangs in a collective operation does not.
    [[ -e "$logs/hung" ]] || end_within "${NODE_LOSS_WAIT_S:-60}" "$training" || true
    ! kill -0 "$training" 2>/dev/null || stop_training
}

# ray_on_node NODE ARGUMENTS...: Ray on a node until it is told to stop; call it in a subshell. Three attempts: Ray gives
# itself up where its agent needs more than 15 s to start, as on a slow file system (ray-project/ray#65983), and what was
# read once is read faster. Once the training has begun none helps: a node that comes back has lost its workers.
ray_on_node() {
    local node="$1" attempt step
    shift
    trap 'kill "$step" 2>/dev/null; wait "$step"; exit' TERM
    for attempt in 1 2 3; do
        on_node "$node" bash scripts/lib/ray_node.sh "$ray_folder" "$logs/$node" --num-cpus="$cpus" \
            --num-gpus="$gpus" "$@" >>"$logs/ray-$node.log" 2>&1 &
        step=$!
        wait "$step" || true
        [[ ! -e "$logs/training.log" ]] || break
        echo "Ray on $node ended (attempt $attempt of 3): $logs/ray-$node.log" >&2
    done
    echo "$node" >>"$logs/lost"
    echo "node $node is lost: its Ray has ended, $logs/ray-$node.log" >&2
    kill -USR2 "$$"
}

# The watchdog beside the training: see recipe/online_refiner/run/step_watch.py.
watch_steps() {
    local watch status=0
    trap 'kill "$watch" 2>/dev/null; exit' TERM
    [[ "${STEP_LIMIT_FACTOR:-10}" != 0 ]] || return 0
    here python -m recipe.online_refiner.run.step_watch "$run_folder" \
        --factor "${STEP_LIMIT_FACTOR:-10}" --floor-s "${STEP_LIMIT_FLOOR_S:-600}" >"$logs/step_watch.log" 2>&1 &
    watch=$!
    wait "$watch" || status=$?
    ((status == 3)) || return 0
    tail -n 1 "$logs/step_watch.log" | tee "$logs/hung" >&2
    kill -USR2 "$$"
}
