"""The trainings of a study: order, commands, and what a second call still has to do."""

import fcntl
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recipe.cpu import quickstart
from recipe.cpu.quickstart import Training
from recipe.study.__main__ import main
from recipe.study.plan import Study, study_of
from recipe.study.trainings import (
    LOCK_FILE,
    Inputs,
    State,
    command,
    planned,
    prepared_inputs,
    train,
)

WriteRun = Callable[..., Path]
WRITES_TWO_STEPS = """
import json, sys
with open(sys.argv[1] + '/metrics.jsonl', 'a') as file:
    for step in (1, 2):
        file.write(json.dumps({'step': step, 'data': {}}) + chr(10))
"""


def program(text: str) -> Callable[[Training], list[str]]:
    """A small program in place of the real command."""
    return lambda training: [sys.executable, "-c", text, str(training.folder)]


def test_seeds_come_one_after_the_other_each_with_all_its_arms(
    study: Study, tmp_path: Path
) -> None:
    order = [(item.training.seed, item.training.arm) for item in planned(study, tmp_path)]
    assert order == [(0, "none"), (1, "none"), (1, "dynamic_sft"), (2, "dynamic_sft")]


def test_the_command_holds_base_arm_seed_steps_and_data(study: Study, tmp_path: Path) -> None:
    item = planned(study, tmp_path)[2]
    line = command(study, Inputs(Path("/train"), Path("/test"), "model"), item.training)
    assert item.training.folder == tmp_path / "runs" / "dynamic_sft" / "seed1"
    for part in (
        *("hardware=cpu_debug", "experiment=quickstart_stress", "constraint.kind=dynamic"),
        *("run.seed=1", "run.arm=dynamic_sft", "run.setting=stress"),
        *("trainer.total_training_steps=2", "data.train_files=/train", "data.val_files=/test"),
        *("actor_rollout_ref.model.path=model", f"run.dir={item.training.folder}"),
    ):
        assert part in line


def test_what_is_finished_is_done_and_what_stopped_early_is_open(
    study: Study, tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path / "runs", "none", 0, 0.1)
    write_run(tmp_path / "runs", "none", 1, 0.1, steps=1)
    states = [item.state for item in planned(study, tmp_path)]
    assert states == [State.DONE, State.OPEN, State.OPEN, State.OPEN]


def test_a_run_that_fails_is_noted_tried_again_and_then_left(study: Study, tmp_path: Path) -> None:
    item = planned(study, tmp_path)[0]
    for _ in range(2):
        assert item.state is State.OPEN
        ((_, failure),) = train([item], program("raise ValueError('no luck')"), jobs=1)
        assert "ValueError: no luck" in failure
    assert item.state is State.FAILED
    noted = (item.training.folder / "failures.jsonl").read_text().splitlines()
    assert ["no luck" in json.loads(line)["why"] for line in noted] == [True, True]


def test_a_failure_does_not_stop_the_others_and_all_are_trained(
    study: Study, tmp_path: Path
) -> None:
    items = planned(study, tmp_path)
    text = f"import sys\nif 'seed0' in sys.argv[1]: raise ValueError\n{WRITES_TWO_STEPS}"
    failures = [failure for _, failure in train(items[:2], program(text), jobs=2)]
    assert (bool(failures[0]), failures[1]) == (True, "")
    assert items[1].state is State.DONE


def test_an_interruption_ends_what_is_under_way_and_is_no_failure(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart, "POLL_S", 0.01)
    items = planned(study, tmp_path)
    quick, slow = items[1], items[0]
    text = f"import sys, time\nif 'seed0' in sys.argv[1]: time.sleep(600)\n{WRITES_TWO_STEPS}"
    under_way = train([quick, slow], program(text), jobs=2)
    assert next(under_way)[1] == ""
    under_way.close()
    assert slow.state is State.OPEN
    assert slow.failures() == []


def test_what_another_call_trains_at_this_moment_is_left_to_it(
    study: Study, tmp_path: Path
) -> None:
    item = planned(study, tmp_path)[0]
    two_steps = program(WRITES_TWO_STEPS)
    item.training.folder.mkdir(parents=True)
    with (item.training.folder / LOCK_FILE).open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert [failure for _, failure in train([item], two_steps, jobs=1)] == [""]
        assert not (item.training.folder / "metrics.jsonl").exists()
    assert [failure for _, failure in train([item], two_steps, jobs=1)] == [""]
    assert item.state is State.DONE


def test_problems_are_generated_for_a_model_given_by_name(
    content_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    data = {"micro_apps": {"train": 12, "test": 4}}
    study = study_of(content_of(data=data, model="some/model"), "small.yaml")
    inputs = prepared_inputs(study, tmp_path)
    assert inputs.model == "some/model"
    assert [pq.read_metadata(file).num_rows for file in (inputs.train, inputs.test)] == [12, 4]


@pytest.mark.parametrize("model", ["smollm2", "smollm2_micro_apps"])
def test_a_pretrained_model_that_is_not_installed_is_named_with_the_fix(
    model: str,
    content_of: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("recipe.cpu.pretrained_model.MODULE", "absent_module")
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(content_of(model=model, base=["experiment=x"])))
    call = [str(file), "--out", str(tmp_path / "out")]
    assert main([*call, "--list"]) == 0, "what is open needs no model"
    assert not (tmp_path / "out").exists()
    assert main(call) == 2
    assert f"model={model}: the package" in (said := capsys.readouterr().err)
    assert "install it with" in said
