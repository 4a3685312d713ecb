# Sourced by scripts/train.sbatch: nodes, their addresses and GPUs, and what commands run inside.
# shellcheck shell=bash disable=SC2154
#
# Uses the variables of train.sbatch: head, nodes, cpus, gpus.

inside=()
container_options=()
binds=()

# bind FOLDER[:PLACE]: let the container see it, if it is there and not bound yet.
bind() {
    local one
    [[ -e "${1%%:*}" ]] || return 0
    for one in ${binds[@]+"${binds[@]}"}; do
        [[ "$one" != "$1" ]] || return 0
    done
    binds+=("$1")
    [[ -z "${ONLINE_REFINER_CONTAINER:-}" ]] || enter_container
}

# The virtual environment, or the container with all that a run reads and writes.
choose_environment() {
    local default_venv=.venv-gpu extra
    [[ -d "$default_venv" ]] || default_venv=.venv
    if [[ -n "${ONLINE_REFINER_CONTAINER:-}" ]]; then
        mkdir -p "${ONLINE_REFINER_RUNS:-$PWD/runs}"
        IFS=, read -ra extra <<<"${ONLINE_REFINER_BINDS:-}"
        for one in "$PWD" "${ONLINE_REFINER_DATA:-$PWD/data}" "${ONLINE_REFINER_RUNS:-$PWD/runs}" \
            "${HF_HOME:-$HOME/.cache/huggingface}" ${extra[@]+"${extra[@]}"}; do
            bind "$one"
        done
    elif [[ -f "${ONLINE_REFINER_VENV:=$default_venv}/bin/activate" ]]; then
        # shellcheck disable=SC1091
        source "$ONLINE_REFINER_VENV/bin/activate"
    else
        fail "no environment at $ONLINE_REFINER_VENV" "set ONLINE_REFINER_VENV or ONLINE_REFINER_CONTAINER"
    fi
}

container_runtime() {
    local default=apptainer
    [[ ! "$ONLINE_REFINER_CONTAINER" =~ \.sqsh$|\# ]] || default=pyxis
    echo "${ONLINE_REFINER_CONTAINER_RUNTIME:-$default}"
}

# Sets the words before a command: of the container's own program, or as srun's options where pyxis is a part of it.
enter_container() {
    local mounts=() one
    for one in "${binds[@]}"; do
        [[ "$one" == *:* ]] && mounts+=("$one") || mounts+=("$one:$one")
    done
    case "$(container_runtime)" in
        apptainer)
            inside=(apptainer exec --nv --pwd "$PWD" "${mounts[@]/#/--bind=}" "$ONLINE_REFINER_CONTAINER")
            ;;
        enroot)
            mounts=("${mounts[@]/#/--mount=}")
            inside=(enroot start --rw --conf "$PWD/scripts/lib/enroot.conf" "${mounts[@]/%/:none:x-create=auto,rbind}"
                "$ONLINE_REFINER_CONTAINER")
            ;;
        pyxis)
            container_options=(--container-image="$ONLINE_REFINER_CONTAINER" --container-workdir="$PWD"
                --container-mounts="$(IFS=, && echo "${mounts[*]}")")
            ;;
        *) fail "ONLINE_REFINER_CONTAINER_RUNTIME=$ONLINE_REFINER_CONTAINER_RUNTIME is unknown" \
            "apptainer, pyxis or enroot" ;;
    esac
}

# on_host NODE COMMAND...: outside of any container. All cores have to be asked for: a step gets one otherwise, and
# everything that Ray starts would share it.
on_host() { srun "${STEP_OPTIONS[@]}" --cpus-per-task="$cpus" --nodelist="$1" "${@:2}"; }
STEP_OPTIONS=(--overlap --export=ALL --nodes=1 --ntasks=1 --cpu-bind=none)

# on_node NODE COMMAND...: takes this shell's place, so that a signal to it reaches srun; call it in a subshell.
on_node() {
    local node="$1"
    shift
    exec srun "${STEP_OPTIONS[@]}" --cpus-per-task="$cpus" --nodelist="$node" \
        ${container_options[@]+"${container_options[@]}"} ${inside[@]+"${inside[@]}"} "$@"
}

# here COMMAND...: the same on this node, which is the first one. pyxis knows steps of srun only.
here() {
    ((${#container_options[@]} == 0)) || on_node "$head" "$@"
    exec ${inside[@]+"${inside[@]}"} "$@"
}

# first_address: of those on standard input one a line, the first that other nodes can reach; IPv4 before IPv6.
first_address() {
    local all
    all="$(cat)"
    grep -E '^[0-9]+(\.[0-9]+){3}$' <<<"$all" | grep -m1 -vE '^(127|169\.254|0)\.' ||
        grep -E '^[0-9a-fA-F:]*:[0-9a-fA-F:.]*$' <<<"$all" | grep -m1 -viE '^(::1?$|fe80:)'
}

# The address of Ray's head: as set, else of the interface, else what its name stands for, else of any interface.
# /etc/hosts may give its name 127.0.1.1 besides the real one, or only that.
head_address() {
    local found
    if [[ -n "${ONLINE_REFINER_ADDRESS:-}" ]]; then
        echo "$ONLINE_REFINER_ADDRESS"
        return
    fi
    if [[ -n "${ONLINE_REFINER_INTERFACE:-}" ]]; then
        found="$(on_host "$head" ip -oneline address show dev "${ONLINE_REFINER_INTERFACE%%,*}" | awk '{ sub("/.*", "", $4); print $4 }')" || true
    else
        found="$( (on_host "$head" hostname --ip-address; on_host "$head" hostname --all-ip-addresses) | tr -s ' ' '\n')" || true
    fi
    first_address <<<"$found" && return
    if [[ -n "${ONLINE_REFINER_INTERFACE:-}" ]]; then
        fail "ONLINE_REFINER_INTERFACE=$ONLINE_REFINER_INTERFACE: ${ONLINE_REFINER_INTERFACE%%,*} has no address on $head" \
            "take one of: $(on_host "$head" ip -oneline link show | awk -F': ' '{ print $2 }' | tr '\n' ' ')"
    fi
    fail "no address of $head that other nodes could reach (found: ${found//$'\n'/ })" \
        "set ONLINE_REFINER_ADDRESS, or ONLINE_REFINER_INTERFACE"
}

host_and_port() {
    if [[ "$1" == *:* ]]; then echo "[$1]:$2"; else echo "$1:$2"; fi
}

# NCCL takes names as prefixes but for "=", Gloo as they are. What is set already stays.
choose_interface() {
    [[ -n "${ONLINE_REFINER_INTERFACE:-}" ]] || return 0
    export NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-=$ONLINE_REFINER_INTERFACE}"
    export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$ONLINE_REFINER_INTERFACE}"
}

# bypass_proxies HOST...: a proxy is for the internet; requests between the nodes would end there.
bypass_proxies() {
    [[ -n "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}" ]] || return 0
    local names
    names="$(IFS=, && echo "localhost,127.0.0.1,$*")"
    export no_proxy="${no_proxy:+$no_proxy,}$names"
    export NO_PROXY="$no_proxy"
}

# GPUs of this node in the job. Sites with typed GPUs write "a100:4" or, by --gres, only list them.
gpus_on_node() {
    local counted="${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-}}" listed="${SLURM_JOB_GPUS:-${SLURM_STEP_GPUS:-}}"
    if [[ "$counted" =~ [0-9]+$ ]]; then
        tr ',' '\n' <<<"$counted" | awk -F: '{ sum += $NF } END { print sum }'
    elif [[ -n "$listed" ]]; then
        tr ',' '\n' <<<"$listed" | wc -l
    else
        echo 0
    fi
}

# read_facts LINES: what job_facts.py says, NAME=VALUE.
read_facts() {
    local name value
    run_folder="" checkpoints="" nodes_wanted="" gpus_wanted=""
    while IFS='=' read -r name value; do
        case "$name" in
            run_folder) run_folder="$(realpath -m "$value")" ;;
            checkpoints) checkpoints="$(realpath -m "$value")" ;;
            nodes) nodes_wanted="$value" ;;
            gpus) gpus_wanted="$value" ;;
        esac
    done <<<"$1"
    [[ -n "$run_folder" && -n "$checkpoints" && -n "$nodes_wanted" && -n "$gpus_wanted" ]] || exit 2
}

# The job's nodes and GPUs against those that the configuration is made for.
check_nodes() {
    ((${#nodes[@]} == nodes_wanted)) ||
        fail "the job has ${#nodes[@]} nodes, and the configuration is made for $nodes_wanted" \
            "sbatch --nodes=$nodes_wanted, or trainer.nnodes=${#nodes[@]}"
    ((gpus >= gpus_wanted)) ||
        fail "the job has $gpus GPUs a node, and the configuration takes $gpus_wanted" \
            "sbatch --gpus-per-node=$gpus_wanted (or --gres=gpu:TYPE:$gpus_wanted), or another hardware="
}
