"""The launchers against a real Ray: two nodes under a stand-in for SLURM, and a job of Ray's.

The stand-ins for srun, sbatch and scontrol play two nodes on this machine; Ray's head and worker
really start and join. What runs in place of a training only counts steps and keeps checkpoints.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.cpu.tiny_model import ensure_checkpoint

REPO_ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
# Ray may need several attempts on a busy machine.
LIMIT_S = 240

pytestmark = pytest.mark.timeout(4 * LIMIT_S)

SRUN = """#!/usr/bin/env bash
# Plays a step on one node: leaves out srun's own options and runs the command here.
echo "$*" >>"$STAND_IN/srun.log"
while [[ "$1" == --* ]]; do shift; done
# The second node's first attempt fails, as on a slow file system.
if [[ "$*" == *ray_node.sh*" --address="* && ! -e "$STAND_IN/failed" ]]; then
    touch "$STAND_IN/failed"
    exit 1
fi
exec "$@"
"""

SCONTROL = """#!/usr/bin/env bash
case "$1" in
    show) printf 'nodea\\nnodeb\\n' ;;
    requeue) echo "$2" >>"$STAND_IN/requeued" ;;
esac
"""

# Counts steps; a checkpoint only where one was asked for, as after a step of a long training.
TRAINING = f"""
import os, pathlib, sys, time
import ray
from recipe.online_refiner.run.save_request import is_save_requested, mark_saved
run = pathlib.Path(next(a for a in sys.argv if a.startswith("run.dir=")).removeprefix("run.dir="))
tracker = run / "checkpoints" / "latest_checkpointed_iteration.txt"
tracker.parent.mkdir(parents=True, exist_ok=True)
seed = next(a for a in sys.argv if a.startswith("run.seed="))
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
nodes = sum(node["Alive"] for node in ray.nodes())
first = int(tracker.read_text()) + 1 if tracker.exists() else 1
with (run / "steps.log").open("a") as log:
    for step in range(first, {STEPS} + 1):
        time.sleep(0.5)
        print(step, nodes, seed, file=log, flush=True)
        if is_save_requested(run):
            tracker.write_text(str(step))
            mark_saved(run)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with srun, scontrol and what is trained."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "training.py").write_text(TRAINING)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    python = Path(sys.executable).parent
    return (
        os.environ
        | {
            "PATH": f"{python}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPO_ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "HF_HUB_OFFLINE": "1",
        }
        | more
    )


def rows_and_model(folder: Path) -> list[str]:
    """Overrides with which the quickstart's experiments pass the preflight."""
    row = {
        "data_source": "micro_apps",
        "prompt": [{"role": "user", "content": "Print the sum."}],
        "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
        "extra_info": {"index": 0},
    }
    pq.write_table(pa.Table.from_pylist([row] * 16), folder / "rows.parquet")
    files = [f"data.{split}_files={folder / 'rows.parquet'}" for split in ("train", "val")]
    return [*files, f"actor_rollout_ref.model.path={ensure_checkpoint()}"]


def job(stand_in: Path, run: Path, restarts: int) -> subprocess.Popen[str]:
    """sbatch's part: start the script in the checkout, with SLURM's variables."""
    variables = environment(
        STAND_IN=str(stand_in),
        SLURM_JOB_ID="4711",
        SLURM_ARRAY_JOB_ID="4711",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_RESTART_COUNT=str(restarts),
        SLURM_JOB_NODELIST="node[a-b]",
        SLURM_SUBMIT_DIR=str(REPO_ROOT),
        SLURM_CPUS_ON_NODE="1",
        ONLINE_REFINER_VENV=str(Path(sys.executable).parents[1]),
        ONLINE_REFINER_ADDRESS="127.0.0.1",
        RAY_PORT=str(free_port()),
        RAY_WAIT_S="200",
        SAVE_WAIT_S="30",
        TRAIN_COMMAND=f"python {stand_in / 'training.py'}",
    )
    variables["PATH"] = f"{stand_in}:{variables['PATH']}"
    command = [
        *("bash", "scripts/train.sbatch", "experiment=quickstart_sane", "hardware=cpu_debug"),
        *("trainer.nnodes=2", f"run.dir={run}", *rows_and_model(stand_in)),
    ]
    return subprocess.Popen(
        command, cwd=REPO_ROOT, env=variables, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Its output; the end of all that it started where it hangs."""
    try:
        return process.communicate(timeout=LIMIT_S)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_steps(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    log, deadline = run / "steps.log", time.monotonic() + LIMIT_S
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline, "no step was made"
        time.sleep(0.1)


def test_two_nodes_train_save_at_the_time_limit_and_go_on_when_queued_again(
    stand_in: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = job(stand_in, run, restarts=0)
    wait_for_steps(run, 2, first)
    os.kill(first.pid, signal.SIGUSR1)
    output = finish(first)
    assert first.returncode == 0, output
    assert "Ray on nodeb ended (attempt 1 of 3)" in output
    assert "Ray has 2 nodes" in output
    assert (stand_in / "requeued").read_text() == "4711_2\n"
    saved = int((run / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    assert f"queued again at checkpoint {saved}" in output
    assert not (run / "save_requested").exists()

    second = job(stand_in, run, restarts=1)
    output = finish(second)
    assert second.returncode == 0, output
    lines = (run / "steps.log").read_text().splitlines()
    assert {line.split(maxsplit=1)[1] for line in lines} == {"2 run.seed=2"}
    steps = [int(line.split()[0]) for line in lines]
    resumed = len(steps) - (STEPS - saved)
    assert steps[resumed:] == list(range(saved + 1, STEPS + 1))
    assert steps[:saved] == list(range(1, saved + 1))
    assert (stand_in / "requeued").read_text() == "4711_2\n"
    nodes = re.findall(r"--nodelist=(\w+) bash .*ray_node", (stand_in / "srun.log").read_text())
    assert nodes.count("nodea") >= 2
    assert nodes.count("nodeb") >= 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The dashboard's address of a Ray that `ray start --head` started."""
    port, dashboard, agent = free_port(), free_port(), free_port()
    # The agent takes the jobs, and cannot where another cluster here holds its usual port.
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
               "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
               f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]  # fmt: skip
    with (tmp_path / "ray.log").open("w") as log:
        head = subprocess.Popen(
            command,
            env=environment(RAY_AUTH_MODE="token"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.terminate()
        try:
            head.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)


NO_AGENT_YET = "No available agent to submit job"


def submit(address: str, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """scripts/submit_ray.sh with the preflight as its job, once the cluster takes jobs."""
    command = [
        *("scripts/submit_ray.sh", "--address", address),
        *("--module", "recipe.online_refiner.preflight"),
        *("experiment=quickstart_sane", "hardware=cpu_debug", f"run.dir={tmp_path / 'run'}"),
        *overrides,
    ]
    variables = environment(ONLINE_REFINER_RUNS=str(tmp_path / "runs"))
    deadline = time.monotonic() + 60
    while True:
        host, port = address.removeprefix("http://").split(":")
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                break
        assert time.monotonic() < deadline, "Ray's dashboard does not answer"
        time.sleep(0.5)
    while True:
        done = subprocess.run(
            command, cwd=REPO_ROOT, env=variables, text=True, capture_output=True, timeout=120
        )
        # The dashboard answers before the agent that takes jobs does.
        if NO_AGENT_YET not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def test_a_job_of_rays_runs_the_checkout_and_gives_its_status(cluster: str, tmp_path: Path) -> None:
    given = rows_and_model(tmp_path)
    good = submit(cluster, tmp_path, *given)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "What will run" in good.stdout
    assert f"ray job logs --address {cluster} --follow online-refiner-" in good.stdout
    time.sleep(1)  # the default name has the second in it
    bad = submit(cluster, tmp_path, *given, "trainer.total_training_steps=0")
    assert bad.returncode != 0
    assert "trainer.total_training_steps=0: nothing would be trained" in bad.stdout + bad.stderr
