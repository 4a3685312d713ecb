#!/usr/bin/env bash
# Makes the environment and runs the tests, fast ones first.
set -euo pipefail

# shellcheck source=scripts/lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"

INTEGRATION_LIMIT_S="${INTEGRATION_LIMIT_S:-3000}"
PYTEST_NOTHING_SELECTED=5
summary=()
failures=0

usage() {
    cat <<EOF
usage: scripts/test.sh [--fast] [--only STAGE] [--keep-going] [arguments for pytest]

Makes the environment in .venv (first time: 3 to 8 minutes, about 3 GB), then runs the stages
  lint         ruff, ruff format, mypy, codespell, deptry (imports are declared), shellcheck
  unit         tests/unit: no Ray, no network, about a minute
  adversarial  tests/adversarial: programs that attack the sandbox, configurations that an operator may write
  integration  tests/integration: real verl, Ray and vLLM on the CPU, about 12 GiB of memory
  gpu          tests/gpu, if there is a CUDA device
  sample-data  the tests that need real sample data, if there is any: they are left out of the stages before
A stage that fails ends the run before the next slower one. The exit status is 0 only if nothing failed.

  --fast         stop after unit
  --only STAGE   this stage alone
  --keep-going   run the slower stages after a failure as well
EOF
}

only=""
fast=false
keep_going=false
pytest_arguments=()
while (($#)); do
    case "$1" in
        -h | --help) usage && exit 0 ;;
        --fast) fast=true ;;
        --keep-going) keep_going=true ;;
        --only)
            only="${2:-}"
            shift
            ;;
        *) pytest_arguments+=("$1") ;;
    esac
    shift || true
done
case "$only" in
    "" | lint | unit | adversarial | integration | gpu | sample-data) ;;
    *) fail "unknown stage '$only'" "--only lint, unit, adversarial, integration, gpu or sample-data" ;;
esac

stage_lint() {
    local status=0
    "$VENV/bin/ruff" check . || status=1
    "$VENV/bin/ruff" format --check . || status=1
    "$VENV/bin/mypy" || status=1
    "$VENV/bin/codespell" --toml pyproject.toml || status=1
    "$VENV/bin/deptry" --no-ansi . || status=1
    if [[ -x "$VENV/bin/shellcheck" ]]; then
        find scripts .ci \( -name '*.sh' -o -name '*.sbatch' -o -path .ci/run \) -exec "$VENV/bin/shellcheck" -x {} + ||
            status=1
    else
        warn "shellcheck is not packaged for $(uname -m): the shell scripts were not checked"
    fi
    return "$status"
}

# Folder of real sample data, which a clone does not have; see tests/conftest.py.
SAMPLE_DATA="${ONLINE_REFINER_SAMPLE_DATA-$REPO_ROOT/../shared/data}"

# run_pytest FOLDER ARGUMENTS...
run_pytest() {
    local status=0
    [[ -e "$1" ]] || return "$PYTEST_NOTHING_SELECTED"
    # Tiny tensors: threads would only wait for each other.
    OMP_NUM_THREADS=1 "$VENV_PYTHON" -m pytest "$@" ${pytest_arguments[@]+"${pytest_arguments[@]}"} || status=$?
    return "$status"
}

stage_unit() { run_pytest tests/unit --numprocesses=auto --dist=loadfile --durations=5; }
# Those that try configurations judge no programs, whose time is limited, and share the cores.
CONFIGURATION_TESTS=(tests/adversarial/test_any_value.py tests/adversarial/test_offered_fixes.py)

stage_adversarial() {
    local programs=0 configurations=0
    run_pytest tests/adversarial "${CONFIGURATION_TESTS[@]/#/--ignore=}" --durations=5 || programs=$?
    run_pytest "${CONFIGURATION_TESTS[@]}" --numprocesses=auto --durations=5 || configurations=$?
    ((programs != PYTEST_NOTHING_SELECTED)) || return "$configurations"
    ((configurations == PYTEST_NOTHING_SELECTED || configurations == 0)) || return "$configurations"
    return "$programs"
}
stage_gpu() { run_pytest tests/gpu; }

stage_sample-data() {
    [[ -n "$SAMPLE_DATA" && -d "$SAMPLE_DATA" ]] || return "$PYTEST_NOTHING_SELECTED"
    has_libnuma || return "$PYTEST_NOTHING_SELECTED"
    take_turn
    timeout --kill-after=30 "$INTEGRATION_LIMIT_S" env ONLINE_REFINER_SAMPLE_DATA="$SAMPLE_DATA" \
        "$VENV_PYTHON" -m pytest tests -m sample_data --durations=5 ${pytest_arguments[@]+"${pytest_arguments[@]}"} 9>&-
}

stage_integration() {
    [[ -d tests/integration ]] || return "$PYTEST_NOTHING_SELECTED"
    if ! has_libnuma; then
        warn "libnuma.so.1 is missing, and vLLM needs it: $(libnuma_remedy)"
        [[ -z "${CI:-}" ]] || return 1
        return "$PYTEST_NOTHING_SELECTED"
    fi
    take_turn
    # Two trainings at once: each has a cluster of its own, and starts in a chain of imports on one core.
    # In the order that tests/integration/conftest.py gives them.
    timeout --kill-after=30 "$INTEGRATION_LIMIT_S" "$VENV_PYTHON" -m pytest tests/integration \
        --numprocesses=2 --dist=loadscope --no-loadscope-reorder --durations=0 ${pytest_arguments[@]+"${pytest_arguments[@]}"} 9>&-
}

# run_stage NAME: runs stage_NAME, times it and adds a line to the summary.
run_stage() {
    local status=0 started="$SECONDS" result
    [[ -z "$only" || "$only" == "$1" ]] || return 0
    if ((failures)) && [[ "$keep_going" == false && "$1" != unit ]]; then
        summary+=("$(printf '%-12s not run' "$1")")
        return 0
    fi
    printf '\n=== %s\n' "$1"
    "stage_$1" || status=$?
    case "$status" in
        0) result=passed ;;
        "$PYTEST_NOTHING_SELECTED") result="nothing to run" ;;
        *)
            result=FAILED
            failures=$((failures + 1))
            ;;
    esac
    summary+=("$(printf '%-12s %-14s %5d s' "$1" "$result" "$((SECONDS - started))")")
}

cd "$REPO_ROOT"
# As in a clone that has nothing beside it: the stage sample-data shows the folder again.
export ONLINE_REFINER_SAMPLE_DATA=
started="$SECONDS"
ensure_environment
summary+=("$(printf '%-12s %-14s %5d s' environment ready "$((SECONDS - started))")")
run_stage lint
run_stage unit
if [[ "$fast" == false ]]; then
    run_stage adversarial
    run_stage integration
    run_stage gpu
    run_stage sample-data
fi
printf '\n=== summary\n'
printf '  %s\n' "${summary[@]}"
((failures == 0)) || exit 1
