# Sourced by scripts/quickstart.sh and scripts/test.sh: checks the machine and makes the environment.
# shellcheck shell=bash
#
# ensure_environment leaves a ready virtual environment in $VENV and its interpreter in $VENV_PYTHON. It does only what
# is left to do: each step leaves a stamp with the hash of what it depended on.
#
# Settings: ONLINE_REFINER_VENV (folder of the environment, default .venv in the repository), ONLINE_REFINER_PYTHON
# (interpreter to make it with); pip's own variables (PIP_INDEX_URL, HTTPS_PROXY ...) are honoured.

REPO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
VENV="$(realpath -m "${ONLINE_REFINER_VENV:-$REPO_ROOT/.venv}")"
VENV_PYTHON="$VENV/bin/python"
INSTALL_LOG="$VENV/install.log"
TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"
PIP_VERSION="26.3"
SETUPTOOLS_VERSION="77.0.3"
INSTALL_DISK_MIB=6000
RUN_DISK_MIB=1000
# Of what Ray makes below TMPDIR the longest path is /ray/session_DATE_PID/sockets/plasma_store, 68 bytes, and a socket's
# path has at most 107. recipe/online_refiner/preflight/node_rules.py has the same limits, and asks before each training.
LONGEST_TMPDIR_BYTES=39
# Ray's objects (200 MB) and a bucket of weights: hardware/cpu_debug.yaml.
SHARED_MEMORY_MIB=207
COMFORTABLE_MEMORY_MIB=10000
PYTHON_CANDIDATES=(python3.11 python3.12 python3 python)

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# fail MESSAGE REMEDY...: one line what is wrong, then what to do about it.
fail() {
    printf '\nerror: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '  fix: %s\n' "$@" >&2
    exit 1
}

check_platform() {
    local system machine
    system="$(uname -s)"
    machine="$(uname -m)"
    [[ "$system" == Linux ]] || fail "this runs on Linux only, and this is $system" \
        "use a Linux machine, a virtual machine, WSL 2 or a container"
    case "$machine" in
        x86_64 | aarch64) ;;
        *) fail "no packages are pinned for $machine" "use a Linux machine with x86_64 or aarch64" ;;
    esac
    local glibc
    glibc="$(getconf GNU_LIBC_VERSION 2>/dev/null || true)"
    [[ -n "$glibc" ]] || fail "this system's C library is not glibc, and PyTorch has no wheels for others" \
        "use a glibc distribution (Debian 11+, Ubuntu 20.04+, Fedora, RHEL 9+) instead of e.g. Alpine"
    local version="${glibc#* }"
    if ((${version%%.*} == 2 && 10#${version#*.} < 31)); then
        fail "glibc $version is too old, the pinned wheels need 2.31" "use Debian 11+, Ubuntu 20.04+ or RHEL 9+"
    fi
}

free_disk_mib() { df -Pm "$1" | awk 'NR == 2 { print $4 }'; }

# check_disk NEEDED_MIB
check_disk() {
    local folder="$VENV" free
    while [[ ! -d "$folder" ]]; do folder="$(dirname "$folder")"; done
    free="$(free_disk_mib "$folder")"
    ((free >= $1)) || fail "$folder has $free MiB free, and this needs $1 MiB" \
        "free some space, or set ONLINE_REFINER_VENV to a folder on another disk"
    local temporary="${TMPDIR:-/tmp}"
    [[ -w "$temporary" ]] || fail "$temporary is not writable" "set TMPDIR to a writable folder"
}

# Ray and vLLM put sockets below it; the judge's have no path.
check_temporary_folder() {
    local folder="${RAY_TMPDIR:-${TMPDIR:-/tmp}}" bytes
    bytes="$(printf %s "$folder" | wc -c)"
    ((bytes <= LONGEST_TMPDIR_BYTES)) ||
        fail "TMPDIR=$folder has $bytes bytes, and Ray's sockets below it leave it $LONGEST_TMPDIR_BYTES" \
            "export TMPDIR=/tmp, or another short folder on a local disk"
}

check_shared_memory() {
    local free=0 needed="$SHARED_MEMORY_MIB"
    [[ ! -d /dev/shm ]] || free="$(free_disk_mib /dev/shm)"
    # Ray's own leave to hold its objects below TMPDIR.
    [[ "${RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE:-}" != 1 ]] || needed=16
    ((free >= needed)) || fail "/dev/shm has $free MiB free, and a training takes $needed MiB of it" \
        "docker run --shm-size=2g (or --ipc=host), or mount -o remount,size=2G /dev/shm" \
        "or export RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE=1, which is slower"
}

available_memory_mib() {
    local machine_mib limit
    machine_mib="$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)"
    limit="$(cat /sys/fs/cgroup/memory.max 2>/dev/null || echo max)"
    if [[ "$limit" != max ]] && ((limit / 1048576 < machine_mib)); then
        machine_mib=$((limit / 1048576))
    fi
    echo "$machine_mib"
}

check_memory() {
    local available
    available="$(available_memory_mib)"
    ((available >= COMFORTABLE_MEMORY_MIB)) ||
        warn "$available MiB of memory are available; training and the integration tests take up to" \
            "$COMFORTABLE_MEMORY_MIB MiB, so close other programs if they are killed"
}

# The library that vLLM's CPU kernels are linked to; everything but vLLM works without it.
has_libnuma() { "$(find_python)" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }

libnuma_remedy() {
    if command -v apt-get >/dev/null; then
        echo "sudo apt-get install libnuma1"
    elif command -v dnf >/dev/null; then
        echo "sudo dnf install numactl-libs"
    else
        echo "install the package that holds libnuma.so.1 (libnuma1, numactl-libs or numactl)"
    fi
}

# is_supported PYTHON: it starts, and is CPython 3.11 or 3.12 for 64 bits.
is_supported() {
    "$1" -c 'import sys
good = (3, 11) <= sys.version_info < (3, 13) and sys.implementation.name == "cpython" and sys.maxsize > 2**32
raise SystemExit(not good)' 2>/dev/null
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null || "$1" -c 'import pip, venv' 2>/dev/null; }

# Prints the interpreter to make the environment with. pyenv's shims exist for versions that are not selected: hence
# each candidate is started, and pyenv's folders are looked through last.
find_python() {
    local candidate without_venv="" versions="${PYENV_ROOT:-$HOME/.pyenv}/versions"
    local candidates=("${PYTHON_CANDIDATES[@]}" "$versions"/3.11.*/bin/python "$versions"/3.12.*/bin/python)
    [[ -z "${ONLINE_REFINER_PYTHON:-}" ]] || candidates=("$ONLINE_REFINER_PYTHON")
    for candidate in "${candidates[@]}"; do
        if is_supported "$candidate"; then
            if can_make_venv "$candidate"; then
                command -v "$candidate"
                return
            fi
            without_venv="${without_venv:-$candidate}"
        fi
    done
    [[ -z "$without_venv" ]] || fail "$without_venv is the right Python, but has neither venv with ensurepip nor pip" \
        "Debian, Ubuntu: sudo apt-get install $without_venv-venv"
    fail "no Python 3.11 or 3.12 was found (tried ${candidates[*]})" \
        "Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv (or 3.12)" \
        "anywhere: pyenv install 3.11, or: uv python install 3.11" \
        "an interpreter elsewhere: ONLINE_REFINER_PYTHON=/path/to/python3.11 $0"
}

# make_venv PYTHON. Debian keeps ensurepip in a package of its own (python3-venv); pip can fill an empty environment.
make_venv() {
    if "$1" -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv --clear "$VENV"
    else
        "$1" -m venv --clear --without-pip "$VENV"
        "$1" -m pip --python "$VENV_PYTHON" install --quiet "pip==$PIP_VERSION"
    fi
}

# The environment's interpreter starts, and is the one asked for if one is.
venv_fits() {
    is_supported "$VENV_PYTHON" &&
        [[ -z "${ONLINE_REFINER_PYTHON:-}" || "$("$ONLINE_REFINER_PYTHON" -VV)" == "$("$VENV_PYTHON" -VV)" ]]
}

# key_of FILE...: changes with the files' contents but for comments, the interpreter and the environment's place.
key_of() {
    { grep -hv '^#' "$@" && echo "$VENV" && "$VENV_PYTHON" -VV; } 2>/dev/null | sha256sum | cut -d' ' -f1
}

# A step is done when its stamp holds the key it had then: is_stamped STEP KEY, stamp STEP KEY.
is_stamped() { [[ "$(cat "$VENV/$1.stamp" 2>/dev/null)" == "$2" ]]; }
stamp() { echo "$2" >"$VENV/$1.stamp"; }

# pip_install ARGUMENTS...: output goes to the log, and a line per 25 packages to the terminal. Compiles nothing: see
# compile_packages.
pip_install() {
    "$VENV_PYTHON" -m pip install --no-compile --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 |
        tee -a "$INSTALL_LOG" |
        awk '/^(Collecting|Processing) / { if (++n % 25 == 0) { print "      " n " packages found"; fflush() } }
             /^Installing collected/ { print "      unpacking"; fflush() }'
}

fail_install() {
    say "" "The last lines of $INSTALL_LOG:" >&2
    tail -n 12 "$INSTALL_LOG" >&2
    fail "$1" "${@:2}"
}

install_tools() {
    pip_install --retries 2 --timeout 20 "pip==$PIP_VERSION" "setuptools==$SETUPTOOLS_VERSION" ||
        fail_install "pip could not fetch its own update, so the package index is out of reach" \
            "check the network; behind a proxy set HTTPS_PROXY, with a mirror set PIP_INDEX_URL"
}

# The local version +cpu is on no index that has only CUDA builds, so a try costs nothing and cannot pull them.
install_torch() {
    local file="$REPO_ROOT/requirements/torch-cpu.txt"
    pip_install --no-deps -r "$file" && return
    say "      not on pip's configured index; trying $TORCH_CPU_INDEX"
    pip_install --retries 2 --no-deps --index-url "$TORCH_CPU_INDEX" -r "$file" ||
        fail_install "the CPU build of PyTorch could not be installed" \
            "check that $TORCH_CPU_INDEX can be reached from here" \
            "or put the wheel named in $file into a folder and set PIP_FIND_LINKS to it"
}

install_lock() {
    pip_install --no-deps --no-build-isolation -r "$REPO_ROOT/requirements/cpu.lock" ||
        fail_install "the pinned packages could not be installed" \
            "check network and disk, then run the same command again: it goes on with what is missing" \
            "to start afresh, delete $VENV" \
            "a hash mismatch means that a mirror serves other files than the public index"
}

# On all cores, where pip compiles on one. The packages' own tests are left out; so is what is not Python 3.
compile_packages() {
    local site
    site="$("$VENV_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    "$VENV_PYTHON" -m compileall -q -j 0 -x '/tests?/' "$site" >>"$INSTALL_LOG" 2>&1 || true
}

install_project() {
    pip_install --no-deps --no-build-isolation -e "$REPO_ROOT" ||
        fail_install "the project itself could not be installed" "see $INSTALL_LOG"
}

install_packages() {
    local lock="$REPO_ROOT/requirements/cpu.lock" torch="$REPO_ROOT/requirements/torch-cpu.txt" python
    if venv_fits; then
        is_stamped packages "$(key_of "$lock" "$torch")" && return
        check_disk "$RUN_DISK_MIB"
        say "[1/4] bringing $VENV up to date ($("$VENV_PYTHON" -V))"
    else
        check_disk "$INSTALL_DISK_MIB"
        python="$(find_python)"
        say "[1/4] making $VENV with $python ($("$python" -V))"
        make_venv "$python"
    fi
    install_tools
    say "[2/4] installing PyTorch (CPU build, about 200 MB)"
    install_torch
    say "[3/4] installing $(grep -c '==' "$lock") pinned packages, about 600 MB and 2 to 7 minutes"
    install_lock
    say "      compiling them"
    compile_packages
    stamp packages "$(key_of "$lock" "$torch")"
}

ensure_environment() {
    unset PYTHONHOME PYTHONPATH
    check_platform
    check_temporary_folder
    check_shared_memory
    check_memory
    local lock_fd project_key
    mkdir -p "$(dirname "$VENV")"
    exec {lock_fd}>"$VENV.lock"
    flock -n "$lock_fd" || { say "waiting for another installation into $VENV"; flock "$lock_fd"; }
    install_packages
    project_key="$REPO_ROOT $(key_of "$REPO_ROOT/pyproject.toml")"
    if ! is_stamped project "$project_key"; then
        say "[4/4] installing this project (editable)"
        install_project
        stamp project "$project_key"
    fi
    exec {lock_fd}>&-
}

# take_turn: two local Ray clusters of one user disturb each other, so runs wait for each other. The turn is over when
# every process that holds file descriptor 9 has ended: give 9>&- to what may be left behind.
take_turn() {
    exec 9>"${TMPDIR:-/tmp}/online-refiner-ray-$(id -u).lock"
    flock -n 9 && return
    say "waiting for another run on this machine to end"
    flock 9
}
