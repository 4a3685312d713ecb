#!/usr/bin/env bash
# Writes the locks for CUDA GPUs: resolutions for Linux x86_64, with hashes. Nothing is installed or run.
set -euo pipefail

ENGINES=(vllm sglang megatron)

usage() {
    cat <<EOF
usage: scripts/lock_gpu.sh [--upgrade] [ENGINE ...]

Writes requirements/gpu-ENGINE.lock from gpu-ENGINE.in for each ENGINE (default: ${ENGINES[*]}). Versions stay as the
lock has them unless the requirements say otherwise; --upgrade takes the newest that fit. Needs uv (pip install uv), and
Python 3.11 and 3.12 for Megatron's. Then run scripts/check_gpu_install.sh ENGINE, which tries the result.
EOF
}

options=()
while (($#)); do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --upgrade) options+=(--upgrade) ;;
        *) break ;;
    esac
    shift
done
(($# == 0)) || ENGINES=("$@")

cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"
command -v uv >/dev/null || {
    printf 'error: uv is not on the PATH\n  fix: pip install uv\n' >&2
    exit 2
}

# python_of ENGINE: Megatron-Bridge has no releases for an older Python than 3.12.
python_of() { [[ "$1" == megatron ]] && echo 3.12 || echo 3.11; }

# lock ENGINE: only wheels, so that nothing is compiled where a package says nothing of its needs before it is built; but
# for one pure Python package that never had a wheel.
lock() {
    local lock="gpu-$1.lock" python resolved overrides=()
    python="$(python_of "$1")"
    [[ ! -f "gpu-$1.overrides" ]] || overrides=(--override "gpu-$1.overrides")
    resolved="$(mktemp)"
    [[ ! -f "$lock" ]] || cp "$lock" "$resolved"
    echo "resolving gpu-$1.in" >&2
    uv pip compile --quiet --python-version "$python" --python-platform x86_64-manylinux_2_35 --generate-hashes \
        --no-annotate --no-header --only-binary :all: --no-binary antlr4-python3-runtime --no-emit-package online-refiner \
        ${options[@]+"${options[@]}"} ${overrides[@]+"${overrides[@]}"} --output-file "$resolved" "gpu-$1.in" >/dev/null
    {
        printf '# Written by scripts/lock_gpu.sh from gpu-%s.in; do not edit. Resolved for Linux x86_64 with glibc >= 2.35 and\n' "$1"
        printf '# Python %s; see docs/cluster.md for what was tried. Install: pip install --no-deps --require-hashes -r this file\n' "$python"
        grep -v '^#' "$resolved"
    } >"$lock"
    rm "$resolved"
}

for engine in "${ENGINES[@]}"; do
    [[ -f "gpu-$engine.in" ]] || {
        printf 'error: there is no requirements/gpu-%s.in\n  fix: one of vllm, sglang, megatron\n' "$engine" >&2
        exit 2
    }
    lock "$engine"
done
