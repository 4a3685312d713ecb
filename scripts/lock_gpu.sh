#!/usr/bin/env bash
# Writes requirements/gpu-vllm.lock and gpu-sglang.lock: a resolution for Linux x86_64 and Python 3.11, with hashes.
# Nothing is installed or run. Needs uv (pip install uv).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"
command -v uv >/dev/null || {
    printf 'error: uv is not on the PATH\n  fix: pip install uv\n' >&2
    exit 2
}
for engine in vllm sglang; do
    options=()
    [[ ! -f "gpu-$engine.overrides" ]] || options=(--override "gpu-$engine.overrides")
    echo "resolving gpu-$engine.in" >&2
    resolved="$(uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_35 \
        --generate-hashes --no-annotate --no-header ${options[@]+"${options[@]}"} "gpu-$engine.in")"
    {
        printf '# Written by scripts/lock_gpu.sh from gpu-%s.in; do not edit. Resolved for Linux x86_64 with glibc >= 2.35 and\n' "$engine"
        printf '# Python 3.11; not installed or run on a GPU. Install: pip install --no-deps --require-hashes -r this file\n'
        printf '%s\n' "$resolved"
    } >"gpu-$engine.lock"
done
