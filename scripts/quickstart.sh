#!/usr/bin/env bash
# From a fresh clone to the figures of a real, small run on a machine without a GPU.
set -euo pipefail

# shellcheck source=scripts/lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"

usage() {
    cat <<EOF
usage: scripts/quickstart.sh [options of the run]

Makes the environment in .venv (first time: 3 to 8 minutes, about 3 GB), then prepares the micro-APPS problems and the
tiny model, trains every arm with the real stack (verl, Ray, FSDP2, vLLM) on the CPU, draws the figures and prints
where they are. Running it again resumes it. Needs Linux, Python 3.11 or 3.12, and no GPU.

ONLINE_REFINER_VENV    folder of the environment (default: .venv)
ONLINE_REFINER_PYTHON  interpreter to make it with (default: the first of ${PYTHON_CANDIDATES[*]} that fits)
EOF
    if [[ -f "$VENV/project.stamp" ]]; then
        printf '\nOptions of the run:\n\n'
        "$VENV_PYTHON" -m recipe.cpu.quickstart --help
    else
        printf '\nThe options of the run are shown here once the environment is installed; the usual ones:\n'
        printf '  --setting stress|sane   --arm ARM   --steps N\n'
    fi
}

for argument in "$@"; do
    if [[ "$argument" == -h || "$argument" == --help ]]; then
        usage
        exit 0
    fi
done

cd "$REPO_ROOT"
check_platform
has_libnuma || fail "libnuma.so.1 is missing, and vLLM needs it to generate" "$(libnuma_remedy), then run this again" \
    "without it scripts/test.sh still runs all but the integration tests"
ensure_environment
take_turn
# In place of this shell, so that signals reach it; what it starts does not inherit the turn.
exec "$VENV_PYTHON" -m recipe.cpu.quickstart "$@"
