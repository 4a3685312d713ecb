#!/usr/bin/env bash
# Submits a training to a running Ray cluster as a job of Ray's.
set -euo pipefail

REPO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

usage() {
    cat <<EOF
usage: scripts/submit_ray.sh [options] KEY=VALUE ...

  scripts/submit_ray.sh experiment=dynamic_dapo_apps hardware=gpu8x80 run.seed=1

Sends this checkout's packages to the cluster, starts python -m recipe.online_refiner.main there and follows its log. The
same command resumes a run from its last checkpoint. Ctrl-C stops following, not the job.

  --address URL   the cluster's dashboard (default: RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)
  --id ID         the job's name (default: online-refiner-DATE-TIME)
  --detach        return at once
  --module NAME   another module than recipe.online_refiner.main, e.g. recipe.online_refiner.preflight
  --send PATH     send this as well, e.g. a folder of the checkout with a reward of your own; may be repeated
  --dry-run       print what would be submitted

Where the cluster asks for a token, it is taken from RAY_AUTH_TOKEN or ~/.ray/auth_token, as Ray's own heads do.

Needs the same environment (Python, verl, engine) on every node, and for data, models and runs storage that all nodes
share. Passed on if they are set: ONLINE_REFINER_DATA and ONLINE_REFINER_RUNS (absolute: a job runs in a temporary
copy of this folder; default data/ and runs/ of this checkout), HF_HOME, HF_HUB_OFFLINE, WANDB_MODE, WANDB_DIR,
TENSORBOARD_DIR and every name in ONLINE_REFINER_PASS_ON. Secrets are better set on the nodes: Ray shows a job's variables on its dashboard.
EOF
}

fail() {
    printf 'error: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 2
}

address="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"
id="online-refiner-$(date +%Y%m%d-%H%M%S)"
module=recipe.online_refiner.main
options=()
send=()
dry_run=false
while (($#)); do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --detach) options+=(--no-wait) ;;
        --dry-run) dry_run=true ;;
        --address | --id | --module | --send)
            (($# > 1)) || fail "$1 has no value" "$1 VALUE"
            case "$1" in
                --address) address="$2" ;;
                --id) id="$2" ;;
                --send) send+=("$2") ;;
                *) module="$2" ;;
            esac
            shift
            ;;
        -*) fail "unknown option $1" "see --help" ;;
        *) break ;;
    esac
    shift
done
(($#)) || fail "nothing to run" "name at least experiment=... and hardware=..."
command -v ray >/dev/null || fail "ray is not on the PATH" "activate the environment that the cluster has"

# Ray 2.60's head asks for a token if it finds one, but its job client sends none unless told to.
if [[ -z "${RAY_AUTH_MODE:-}" && (-n "${RAY_AUTH_TOKEN:-}" || -f "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}") ]]; then
    export RAY_AUTH_MODE=token
fi
export ONLINE_REFINER_DATA="${ONLINE_REFINER_DATA:-$REPO_ROOT/data}"
export ONLINE_REFINER_RUNS="${ONLINE_REFINER_RUNS:-$REPO_ROOT/runs}"
for name in ONLINE_REFINER_DATA ONLINE_REFINER_RUNS; do
    [[ "${!name}" == /* ]] || fail "$name=${!name} is relative" "an absolute path that all nodes share"
done

# A job runs in a temporary copy: what it writes below it is lost.
for override in "$@"; do
    case "$override" in
        run.dir=/* | trainer.default_local_dir=/*) ;;
        run.dir=* | trainer.default_local_dir=*)
            fail "$override is relative, and a job runs in a temporary copy" "an absolute path that all nodes share"
            ;;
    esac
done

read -ra extra <<<"${ONLINE_REFINER_PASS_ON:-}"
environment="$(python3 "$REPO_ROOT/scripts/lib/ray_upload.py" "$REPO_ROOT" --send ${send[@]+"${send[@]}"} \
    --variables ONLINE_REFINER_DATA ONLINE_REFINER_RUNS HF_HOME HF_HUB_OFFLINE WANDB_MODE WANDB_DIR TENSORBOARD_DIR \
    ${extra[@]+"${extra[@]}"})"
# What is sent is listed; .gitignore is for what is committed.
export RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1
submit=(ray job submit --address "$address" --submission-id "$id" --runtime-env-json "$environment"
    ${options[@]+"${options[@]}"} -- python -m "$module" "$@")
if [[ "$dry_run" == true ]]; then
    printf '%q ' "${submit[@]}"
    echo
    exit 0
fi

cat <<EOF
follow  ${RAY_AUTH_MODE:+RAY_AUTH_MODE=$RAY_AUTH_MODE }ray job logs --address $address --follow $id
stop    ${RAY_AUTH_MODE:+RAY_AUTH_MODE=$RAY_AUTH_MODE }ray job stop --address $address $id
EOF
exec "${submit[@]}"
