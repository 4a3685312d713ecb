"""The trackers' files are in the run's folder, whichever process and folder the trainer is in."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1
from verl.utils.tracking import Tracking

from recipe.online_refiner.run.trackers import point_trackers
from recipe.online_refiner.runner import OnlineRefinerRunner


def test_the_process_of_the_trainer_writes_into_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job of Ray's: another process than the driver's, in a temporary folder."""
    monkeypatch.delenv("TENSORBOARD_DIR", raising=False)
    monkeypatch.delenv("VERL_FILE_LOGGER_ROOT", raising=False)
    elsewhere, run = tmp_path / "copy", tmp_path / "run"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def track(self: object, config: object) -> None:
        tracking = Tracking("project", "experiment", ["tensorboard", "file"])
        tracking.log({"reward": 0.5}, step=1)
        tracking.finish()

    monkeypatch.setattr(TaskRunnerV1.__ray_actor_class__, "run", track)
    monkeypatch.setattr("recipe.online_refiner.modes.register_trainers", lambda: None)
    runner = OnlineRefinerRunner.__ray_actor_class__()
    runner.run(OmegaConf.create({"run": {"dir": str(run)}}))
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert (run / "project" / "experiment.jsonl").exists()
    assert list(elsewhere.iterdir()) == []


def test_every_tracker_that_writes_files_has_a_place(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    point_trackers(tmp_path / "run", environment)
    assert environment == {
        "TENSORBOARD_DIR": f"{tmp_path}/run/tensorboard",
        "WANDB_DIR": f"{tmp_path}/run",
        "SWANLAB_LOG_DIR": f"{tmp_path}/run/swanlab",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/run/mlflow.db",
        "VERL_FILE_LOGGER_ROOT": f"{tmp_path}/run",
    }
    assert (tmp_path / "run").is_dir()


def test_a_place_that_the_user_has_set_stays(tmp_path: Path) -> None:
    environment = {"TENSORBOARD_DIR": "/elsewhere"}
    point_trackers(tmp_path, environment)
    assert environment["TENSORBOARD_DIR"] == "/elsewhere"
    assert environment["WANDB_DIR"] == str(tmp_path)
