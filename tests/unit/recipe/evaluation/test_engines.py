"""What is taken for a model's folder."""

from pathlib import Path

import pytest

from recipe.evaluation.engines import check_model
from recipe.evaluation.errors import EvaluationError


def test_a_folder_without_a_model_is_refused_and_a_hub_name_is_not(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no folder with a config\.json"):
        check_model(str(tmp_path))
    with pytest.raises(EvaluationError, match=r"no folder with a config\.json"):
        check_model("./absent")
    check_model("Qwen/Qwen2.5-Coder-1.5B-Instruct")
