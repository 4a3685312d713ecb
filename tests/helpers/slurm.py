"""A SLURM job of stand-ins: srun, scontrol, hostname, ip, ray and python, which only note and wait.

`scripts/train.sbatch` itself is run as it is. What a stand-in does is in a file of the job's folder
that a test may replace.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60

# Leaves out srun's own options; as srun, it gives the command nothing where nothing is exported.
SRUN = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/srun.log"
exported=true
[[ "${SLURM_EXPORT_ENV:-ALL}" == ALL ]] || exported=false
while [[ "$1" == --* ]]; do
    case "$1" in
        --export=ALL) exported=true ;;
        --nodelist=*) node="${1#*=}" ;;
    esac
    shift
done
[[ "$exported" == true ]] || exec env -i PATH=/usr/bin:/bin STAND_IN="$STAND_IN" NODE="$node" "$@"
NODE="$node" exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
case "$1" in
    show) cat "$STAND_IN/nodes" ;;
    requeue) echo "$2" >>"$STAND_IN/requeued" ;;
esac
"""
HOSTNAME = """#!/usr/bin/env bash
cat "$STAND_IN/hostname$1" 2>/dev/null
"""
IP = """#!/usr/bin/env bash
case "$*" in
    *"address show dev "*) cat "$STAND_IN/interface-${@: -1}" ;;
    *"link show"*) printf '1: lo: <UP>\\n2: eth0: <UP>\\n3: ib0: <UP>\\n' ;;
esac
"""
# Runs until it is told to stop, with a log as Ray has.
RAY = """#!/usr/bin/env bash
echo "$NODE: $*" >>"$STAND_IN/ray.log"
env >"$STAND_IN/env-$NODE"
mkdir -p "/tmp/ray-$SLURM_JOB_ID/session_2026/logs"
echo "log of $NODE" >"/tmp/ray-$SLURM_JOB_ID/session_2026/logs/raylet-$NODE.out"
echo $$ >"$STAND_IN/pid-$NODE" && mv "$STAND_IN/pid-$NODE" "$STAND_IN/ray-$NODE.pid"
exec sleep 1000
"""
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/python.log"
case "$*" in
    *job_facts.py*) cat "$STAND_IN/facts" ;;
    *recipe.online_refiner.preflight*) exec bash "$STAND_IN/preflight.sh" ;;
    *wait_for_ray.py*) exec bash "$STAND_IN/wait_for_ray.sh" ;;
    *) exec "$REAL_PYTHON" "$@" --every-s 0.1 ;;
esac
"""
# Waits until every node has been asked for a Ray.
WAIT_FOR_RAY = """
started() { ls "$STAND_IN"/ray-*.pid 2>/dev/null | wc -l; }
until [[ "$(started)" == "$(wc -l <"$STAND_IN/nodes")" ]]; do sleep 0.05; done
"""
# A container's program: notes what it was asked for and runs the command.
CONTAINER = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/container.log"
while [[ "$1" != *.sif && "$1" != *.sqsh ]]; do shift; done
shift
exec "$@"
"""
# The same, with the environment and the command script of its configuration, and nothing else.
ENROOT = """#!/usr/bin/env bash
echo "$*" >>"$STAND_IN/container.log"
while [[ "$1" != *.sif ]]; do
    [[ "$1" != --conf ]] || source "$2"
    shift
done
shift
mapfile -t variables < <(environ)
cd /
exec env -i PATH="$PATH" "${variables[@]}" bash -c "$(declare -f rc); rc \\"\\$@\\"" rc "$@"
"""


@dataclass
class Job:
    """One job in `folder`; `variables` are added to the environment of its starts."""

    folder: Path
    number: int
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        bin_folder = self.folder / "venv" / "bin"
        bin_folder.mkdir(parents=True)
        programs = {
            **{"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ip": IP, "ray": RAY},
            **{"python": PYTHON, "apptainer": CONTAINER, "enroot": ENROOT},
        }
        for name, text in programs.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        self.write("venv/bin/activate", "")
        self.write("hostname--ip-address", "10.0.0.7\n")
        self.write("preflight.sh", "exit 0")
        self.write("wait_for_ray.sh", WAIT_FOR_RAY)
        self.nodes("nodea")
        self.facts()
        self.train("exit 0")

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder / "run"

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        """What a stand-in has noted; empty if nothing."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def nodes(self, *names: str) -> None:
        self.write("nodes", "".join(f"{name}\n" for name in names))

    def facts(self, nodes: int = 1, gpus: int = 0) -> None:
        """What the configuration asks for."""
        self.write(
            "facts",
            f"run_folder={self.run}\ncheckpoints={self.run}/checkpoints\nnodes={nodes}\n"
            f"gpus={gpus}\n",
        )

    def train(self, script: str) -> None:
        """What is trained: a script of bash's, with $RUN the run's folder."""
        self.write("training.sh", script)

    def checkpoint(self, step: int) -> None:
        folder = self.run / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "latest_checkpointed_iteration.txt").write_text(str(step))

    def start(self, restarts: int = 0) -> None:
        """sbatch's part: start the script in the checkout, with SLURM's variables."""
        environment = {
            **{key: value for key, value in os.environ.items() if "proxy" not in key.lower()},
            **{"STAND_IN": str(self.folder), "RUN": str(self.run), "REAL_PYTHON": sys.executable},
            **{"SLURM_JOB_ID": str(self.number), "SLURM_JOB_NODELIST": "node[a-b]"},
            **{"SLURM_SUBMIT_DIR": str(REPO_ROOT), "SLURM_CPUS_ON_NODE": "1"},
            "SLURM_RESTART_COUNT": str(restarts),
            "PATH": f"{self.folder / 'venv' / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPO_ROOT),
            "ONLINE_REFINER_VENV": str(self.folder / "venv"),
            **{"STOP_WAIT_S": "10", "NODE_LOSS_WAIT_S": "0", "SAVE_WAIT_S": "20"},
            "STEP_LIMIT_FACTOR": "0",
            "TRAIN_COMMAND": f"bash {self.folder / 'training.sh'}",
            **self.variables,
        }
        self.process = subprocess.Popen(
            ["bash", "scripts/train.sbatch", "experiment=any"], cwd=REPO_ROOT, env=environment,
            text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self) -> tuple[int, str]:
        """Exit status and output; the end of all that it started if it hangs."""
        assert self.process is not None
        try:
            output = self.process.communicate(timeout=LIMIT_S)[0]
            return self.process.returncode, output
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def run_to_the_end(self, restarts: int = 0) -> tuple[int, str]:
        self.start(restarts)
        return self.finish()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def wait_for(self, name: str) -> None:
        """Until a file is there, in the job's folder."""
        assert self.process is not None
        deadline = time.monotonic() + LIMIT_S
        while not (self.folder / name).exists():
            assert self.process.poll() is None, self.finish()
            assert time.monotonic() < deadline, f"{name} was not written"
            time.sleep(0.02)
