"""When `scripts/train.sbatch` has a job queued again, and when not; in a SLURM of stand-ins."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path

import pytest
from slurm import Job

HANGS = "touch $STAND_IN/training; exec sleep 1000"
_numbers = itertools.count(os.getpid() * 100 + 50)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path, next(_numbers))
    made.nodes("nodea", "nodeb")
    made.facts(nodes=2)
    return made


def starts(job: Job) -> list[str]:
    """What launch/starts.log says of each start and end, without the time."""
    log = (job.run / "launch" / "starts.log").read_text()
    return [line.split(maxsplit=1)[1] for line in log.splitlines()]


def test_the_time_limit_during_the_start_queues_the_job_again_and_leaves_nothing(job: Job) -> None:
    job.write("wait_for_ray.sh", HANGS)
    job.start()
    job.wait_for("training")
    for node in ("nodea", "nodeb"):
        job.wait_for(f"ray-{node}.pid")
    job.signal(signal.SIGUSR1)
    status, output = job.finish()
    assert status == 0, output
    assert "queued again at checkpoint none: the time limit came before the training" in output
    assert job.read("requeued") == f"{job.number}\n"
    for node in ("nodea", "nodeb"):
        assert not Path(f"/proc/{int(job.read(f'ray-{node}.pid'))}").exists()


def test_the_time_limit_during_the_preflight_queues_the_job_again_before_ray(job: Job) -> None:
    job.write("preflight.sh", HANGS)
    job.start()
    job.wait_for("training")
    job.signal(signal.SIGUSR1)
    status, output = job.finish()
    assert status == 0, output
    assert job.read("requeued") == f"{job.number}\n"
    assert job.read("ray.log") == ""


def test_the_time_limit_while_the_configuration_is_read_queues_the_job_again(job: Job) -> None:
    facts = job.read("facts")
    (job.folder / "facts").unlink()
    os.mkfifo(job.folder / "facts")
    job.start()
    job.wait_for("python.log")
    job.signal(signal.SIGUSR1)
    job.write("facts", facts)
    status, output = job.finish()
    assert status == 0, output
    assert "queued again at checkpoint none: the time limit came before the training" in output
    assert job.read("requeued") == f"{job.number}\n"
    assert "preflight" not in job.read("python.log")


def test_a_killed_node_ends_the_training_and_queues_the_job_again(job: Job) -> None:
    job.train(HANGS)
    job.start()
    job.wait_for("training")
    os.kill(int(job.read("ray-nodeb.pid")), signal.SIGKILL)
    status, output = job.finish()
    assert status == 0, output
    assert "node nodeb is lost" in output
    assert "queued again at checkpoint none: lost node nodeb" in output
    assert job.read("requeued") == f"{job.number}\n"
    assert starts(job) == [
        f"{job.number}.0 none started",
        f"{job.number}.0 none queued again: lost node nodeb",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3356",
        "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7)",
        "ray.exceptions.ActorDiedError: The actor died because its node has died.",
        "CUDA error: uncorrectable ECC error encountered",
    ],
)
def test_a_failure_of_the_machine_queues_the_job_again(job: Job, line: str) -> None:
    job.train(f"echo '{line}'; exit 1")
    status, output = job.run_to_the_end()
    assert status == 0, output
    assert f"queued again at checkpoint none: {line}" in output
    assert job.read("requeued") == f"{job.number}\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'ValueError: a fault of the program'; exit 1", 1),
        ("echo 'torch.OutOfMemoryError: CUDA out of memory'; exit 1", 1),
        ("echo 'NCCL error, but the configuration cannot run'; exit 2", 2),
        ("echo 'an NCCL error that the run has survived'; exit 0", 0),
    ],
)
def test_a_run_that_ends_otherwise_is_not_queued_again(
    job: Job, script: str, expected: int
) -> None:
    job.train(script)
    status, _ = job.run_to_the_end()
    assert status == expected
    assert job.read("requeued") == ""
    assert starts(job)[-1] == f"{job.number}.0 none ended with status {expected}"


def test_failures_without_a_new_checkpoint_are_queued_again_so_often_and_no_more(job: Job) -> None:
    job.variables["REQUEUE_LIMIT"] = "2"
    job.train("echo 'NCCL error'; exit 1")
    assert [job.run_to_the_end(restarts)[0] for restarts in range(3)] == [0, 0, 1]
    assert job.read("requeued") == f"{job.number}\n" * 2
    assert starts(job)[-1] == f"{job.number}.2 none not queued again: NCCL error"


def test_a_new_checkpoint_makes_the_count_begin_again(job: Job) -> None:
    job.variables["REQUEUE_LIMIT"] = "1"
    job.train("echo 'NCCL error'; exit 1")
    statuses = []
    for restarts, step in enumerate([5, 5, 10, 10]):
        job.checkpoint(step)
        statuses.append(job.run_to_the_end(restarts)[0])
    assert statuses == [0, 1, 0, 1]


def test_a_job_that_slurm_itself_queues_again_and_again_is_refused_too(job: Job) -> None:
    """As where the first node fails, and the script with it: only the starts are on record."""
    job.variables["REQUEUE_LIMIT"] = "2"
    job.train(HANGS)
    for restarts in range(3):
        (job.folder / "training").unlink(missing_ok=True)
        job.start(restarts)
        job.wait_for("training")
        assert job.process is not None
        os.killpg(job.process.pid, signal.SIGKILL)
        job.finish()
    status, output = job.run_to_the_end(3)
    assert status == 2
    assert "has started 3 times at checkpoint none without another one" in output


def test_a_step_that_hangs_is_ended_and_the_job_queued_again(job: Job) -> None:
    records = [{"step": n, "data": {"timing_s/step": 0.01}} for n in range(1, 6)]
    lines = "\n".join(json.dumps(record) for record in records)
    job.train(f"cat >$RUN/metrics.jsonl <<'END'\n{lines}\nEND\n{HANGS}")
    job.variables |= {"STEP_LIMIT_FACTOR": "10", "STEP_LIMIT_FLOOR_S": "0.2"}
    status, output = job.run_to_the_end()
    assert status == 0, output
    assert "queued again at checkpoint none: a step hangs: step 6" in output
    assert "the median of 5 steps is 0.0 s" in output
    assert job.read("requeued") == f"{job.number}\n"


def test_a_checkpoint_is_asked_for_at_the_time_limit(job: Job) -> None:
    job.train(
        "touch $STAND_IN/training; until [[ -e $RUN/save_requested ]]; do sleep 0.05; done\n"
        "mkdir -p $RUN/checkpoints; echo 7 >$RUN/checkpoints/latest_checkpointed_iteration.txt\n"
        "exec sleep 1000"
    )
    job.start()
    job.wait_for("training")
    job.signal(signal.SIGUSR1)
    status, output = job.finish()
    assert status == 0, output
    assert "queued again at checkpoint 7: the time limit" in output
    assert not (job.run / "save_requested").exists()
