"""Running every experiment on the CPU: what runs, what is not run again, what a failure says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recipe.cpu import experiments
from recipe.cpu.experiments import SMALL, SMALL_MATH, Check, check_all, checks, locked, table
from recipe.cpu.quickstart import EXIT_INTERRUPTED
from recipe.online_refiner.experiments import CONFIG

LOGS_A_STEP = """
import json, pathlib, sys
metrics = pathlib.Path(sys.argv[1]) / "metrics.jsonl"
with metrics.open("a") as file:
    file.write(json.dumps({"step": 1, "data": {}}) + "\\n")
"""


def check(folder: Path, code: str = LOGS_A_STEP, **fields: str) -> Check:
    command = (sys.executable, "-c", code, str(folder))
    return Check(folder.name, 1, folder, command, **fields)


@pytest.fixture(autouse=True)
def _polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.cpu.quickstart.POLL_S", 0.02)
    monkeypatch.setattr(experiments, "YIELD_S", 0.0)


def test_what_has_been_trained_is_not_trained_again(tmp_path: Path) -> None:
    todo = [check(tmp_path / "one"), check(tmp_path / "two")]
    first = list(check_all(todo[:1], 60.0, None))
    second = list(check_all(todo, 60.0, None))
    assert [outcome.failure for outcome in (*first, *second)] == ["", "", ""]
    assert first[0].seconds is not None
    assert second[0].seconds is None
    assert len((tmp_path / "one" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "limit_s", "words"),
    [
        ("raise ValueError('no such key')", 60.0, "ValueError: no such key"),
        ("pass", 60.0, "exit status 0 after step -1 of 1"),
        ("import time; time.sleep(60)", 0.3, "exit status -15"),
    ],
)
def test_a_run_that_fails_ends_early_or_hangs_is_told(
    tmp_path: Path, code: str, limit_s: float, words: str
) -> None:
    (failed,) = check_all([check(tmp_path / "bad", code)], limit_s, None)
    (good,) = check_all([check(tmp_path / "good")], 60.0, None)
    assert words in failed.failure
    assert good.failure == ""
    lines = table([failed, good]).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["FAILED", "ok"]


def test_the_lock_is_held_while_a_run_lasts_and_free_afterwards(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    try_it = ["flock", "--nonblock", str(lock), "true"]
    asks = f"import subprocess, sys; sys.exit(subprocess.run({try_it!r}).returncode)"
    (held,) = check_all([check(tmp_path / "asks", asks)], 60.0, lock)
    assert "exit status 1" in held.failure
    assert subprocess.run(try_it).returncode == 0
    with locked(lock):
        assert subprocess.run(try_it).returncode == 1


@pytest.mark.usefixtures("parsed_once")
def test_an_experiment_that_trains_as_another_one_comes_last_and_says_so(tmp_path: Path) -> None:
    names = ["lambda_sweep", "dynamic_dapo_apps_sft", "large_dapo_7b"]
    found = checks(names, tmp_path, steps=1)
    assert [one.experiment for one in found] == ["lambda_sweep", "large_dapo_7b", names[1]]
    assert [one.same_as for one in found] == ["", "", "lambda_sweep"]
    assert [one.differs for one in found] == ["", "actor: fsdp2 for megatron", ""]
    assert "experiment=lambda_sweep" in found[0].command
    assert "hardware=cpu_debug" in found[0].command


@pytest.mark.usefixtures("parsed_once")
@pytest.mark.parametrize(
    "kind", ["dapo_math_{}", "dynamic_dapo_math_{}", "dynamic_dapo_math_{}_sft"]
)
def test_mathematics_of_either_size_is_one_training_on_a_cpu(kind: str) -> None:
    """So that training the smaller one there tries the files of both."""
    found = []
    with initialize_config_dir(str(CONFIG), version_base=None):
        for size in ("7b", "32b"):
            own = [f"experiment={kind.format(size)}", "hardware=cpu_debug", *SMALL, *SMALL_MATH]
            fixed = ["actor_rollout_ref.model.path=tiny", "trainer.total_training_steps=2"]
            config = compose("online_refiner", [*own, *fixed])
            found.append(dict(leaves(OmegaConf.to_container(config, resolve=False))))
    differing = {key for key in {*found[0], *found[1]} if found[0].get(key) != found[1].get(key)}
    named = {"run.hardware", "run.setting", "trainer.experiment_name"}
    assert differing - named == {"refiner.deadline_s"}


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def test_an_interrupted_check_leaves_no_training_behind_and_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM, which a scheduler sends, ends the training that is under way."""
    pid_file = tmp_path / "slow" / "pid"
    code = (
        f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()));"
        "time.sleep(60)"
    )
    monkeypatch.setattr(experiments, "checks", lambda *_: [check(tmp_path / "slow", code)])
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        assert experiments.main([]) == EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "goes on with what is missing" in capsys.readouterr().out
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_an_unknown_experiment_is_refused_with_the_names_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        experiments.main(["dapo_app"])
    assert "'dapo_app' is none of chord_mu_apps, chord_phi_apps, dapo_apps" in (
        capsys.readouterr().err
    )
