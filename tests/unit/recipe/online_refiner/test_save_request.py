"""A request for a checkpoint stands until it is met, and is met once."""

from pathlib import Path

from recipe.online_refiner.run.save_request import REQUEST_FILE, is_save_requested, mark_saved


def test_a_request_stands_until_the_checkpoint_is_saved(tmp_path: Path) -> None:
    assert not is_save_requested(tmp_path)
    (tmp_path / REQUEST_FILE).touch()
    assert is_save_requested(tmp_path)
    mark_saved(tmp_path)
    assert not is_save_requested(tmp_path)
    mark_saved(tmp_path)


def test_the_launcher_and_the_trainer_mean_the_same_file() -> None:
    script = Path(__file__).resolve().parents[4] / "scripts" / "lib" / "slurm_signals.sh"
    assert f'touch "$run_folder/{REQUEST_FILE}"' in script.read_text()
