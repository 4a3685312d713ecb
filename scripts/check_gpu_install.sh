#!/usr/bin/env bash
# Tries a lock for GPUs on a machine that has none: see --help.
set -euo pipefail

REPO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
NEEDED_DISK_MIB=25000

usage() {
    cat <<EOF
usage: scripts/check_gpu_install.sh [--keep FOLDER] [vllm|sglang|megatron]

On a machine without a GPU: installs requirements/gpu-ENGINE.lock (default: vllm) and this project into a fresh
environment, imports every module of ours, of verl and of the engine that a training loads, composes all experiments and
runs their preflight. NVIDIA's driver is stood in for by a library that says that there is no device, so nothing is
computed. Afterwards requirements/gpu-ENGINE.checked says what was tried; a unit test asks for it again when the lock or
the modules that the project imports change.

Takes 3 to 8 minutes, and downloads 4 to 5 GB the first time (uv's cache keeps them). Needs uv, gcc, binutils, 25 GB of
disk below TMPDIR, and Python 3.11, for Megatron 3.12. What is compiled on a machine that trains (flash-attn,
Transformer Engine's half for PyTorch: docs/cluster.md) is not tried, nor is Megatron-Bridge, which needs the latter.

  --keep FOLDER   make the environment there, and leave it
EOF
}

fail() {
    printf '\nerror: %s\n' "$1" >&2
    printf '  fix: %s\n' "${@:2}" >&2
    exit 1
}

engine=""
folder=""
while (($#)); do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --keep)
            (($# > 1)) || fail "--keep has no value" "--keep FOLDER"
            folder="$2"
            shift
            ;;
        vllm | sglang | megatron) engine="$1" ;;
        *) fail "unknown argument '$1'" "one of vllm, sglang, megatron; see --help" ;;
    esac
    shift
done
engine="${engine:-vllm}"
python=3.11
[[ "$engine" != megatron ]] || python=3.12

for tool in uv gcc readelf nm; do
    command -v "$tool" >/dev/null || fail "$tool is not on the PATH" "uv: pip install uv; others: apt-get install gcc binutils"
done
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
folder="${folder:-$scratch/venv}"
free_mib="$(df -Pm "$scratch" | awk 'NR == 2 { print $4 }')"
((free_mib >= NEEDED_DISK_MIB)) || fail "$scratch has $free_mib MiB free, and this needs $NEEDED_DISK_MIB MiB" \
    "set TMPDIR to a folder on another disk"

# step TITLE COMMAND...: its output goes to a log, of which the end is shown if it fails.
step() {
    local title="$1" started="$SECONDS" log="$scratch/log"
    shift
    printf '%-62s' "$title"
    if "$@" >"$log" 2>&1; then
        printf '%5d s\n' "$((SECONDS - started))"
    else
        printf 'FAILED\n'
        tail -n 40 "$log" >&2
        exit 1
    fi
}

install_lock() {
    uv venv --python "$python" "$folder"
    uv pip install --python "$folder/bin/python" --no-deps --require-hashes -r "requirements/gpu-$engine.lock"
    uv pip install --python "$folder/bin/python" --no-deps -e .
    # Half of it is compiled on a machine that trains, and without that half it prevents Megatron-Core's import.
    [[ "$engine" != megatron ]] || uv pip uninstall --python "$folder/bin/python" transformer-engine transformer-engine-cu13
}

stand_in() {
    local packages
    packages="$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    "$folder/bin/python" scripts/lib/stand_in_libcuda.py "$packages" "$scratch/driver"
}

with_driver() { LD_LIBRARY_PATH="$scratch/driver" CUDA_VISIBLE_DEVICES="" "$folder/bin/python" "$@"; }

imports() { with_driver -W ignore scripts/lib/check_gpu_imports.py "$engine"; }

# The unit tests of the experiments: each composes, and passes the preflight with its models' real sizes. The GPU
# environments have pytest, but not the plugins that the project's settings name.
experiments() {
    with_driver -m pytest -q -o addopts=--import-mode=importlib -p no:cacheprovider \
        tests/unit/recipe/online_refiner/test_experiments.py
}

# As a user types it, with the tiny model and problems made for it.
preflight() {
    local model data="$scratch/data" overrides=(hardware=gpu1x80 "engine=$engine")
    # The two keys are of verl's optimizer under FSDP2.
    [[ "$engine" != megatron ]] || overrides=(
        hardware=gpu8x80 strategy=megatron engine=vllm
        '~actor_rollout_ref.actor.optim.lr_scheduler_type' '~actor_rollout_ref.actor.optim.min_lr_ratio'
    )
    model="$("$folder/bin/python" -c 'from recipe.cpu.tiny_model import ensure_checkpoint; print(ensure_checkpoint())')"
    "$folder/bin/python" - "$data" <<'PYTHON'
import sys
from pathlib import Path

from recipe.cpu.micro_apps import prepare_micro_apps

prepare_micro_apps(Path(sys.argv[1]), 512, 16)
PYTHON
    with_driver -m recipe.online_refiner.preflight experiment=dynamic_dapo_apps_sft "${overrides[@]}" \
        "actor_rollout_ref.model.path=$model" "data.train_files=$data/train.parquet" "data.val_files=$data/test.parquet" \
        data.max_prompt_length=192 data.max_response_length=64 refiner.template=micro-v1 refiner.max_prompt_length=384 \
        "run.dir=$scratch/run"
}

cd "$REPO_ROOT"
echo "checking requirements/gpu-$engine.lock in $folder"
step "install $(grep -c '==' "requirements/gpu-$engine.lock") packages and the project" install_lock
step "stand in for the driver" stand_in
step "import what a training loads" imports
sed -n '/modules load/s/^/  /p' "$scratch/log"
step "compose all experiments and run their preflight" experiments
step "preflight from the command line" preflight
cat >"requirements/gpu-$engine.checked" <<EOF
# Written by scripts/check_gpu_install.sh $engine, which passed. The digest is that of scripts/lib/install_stamp.py.
date $(date +%Y-%m-%d)
python $("$folder/bin/python" -c 'import platform; print(platform.python_version())')
digest $("$folder/bin/python" scripts/lib/install_stamp.py "$engine")
EOF
printf 'passed in %d s\n' "$SECONDS"
