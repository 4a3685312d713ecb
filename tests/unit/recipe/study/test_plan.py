"""A study's file: what it may say, and how a mistake in it is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.study.plan import Study, StudyError, read_study, study_of

Content = Callable[..., dict[str, Any]]


def test_an_arm_has_its_own_seeds_or_the_studys(study: Study) -> None:
    assert study.seeds_of("none") == (0, 1)
    assert study.seeds_of("dynamic_sft") == (1, 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sedes": [1]}, "sedes"),
        ({"steps": 0}, "steps=0"),
        ({"families": {"primary": [["dynamic_sft", "nobody"]]}}, "'nobody' is no arm"),
        ({"arms": {"none": {"overrides": ["constraint.kind"]}}, "families": {}}, "KEY=VALUE"),
        ({"data": {}}, "give either micro_apps, or both train and test"),
        ({"data": {"train": "a.parquet"}}, "give either micro_apps, or both train and test"),
        ({"threads": 0}, "threads=0"),
        ({"name": "a/b"}, "name='a/b'"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_a_fix(
    content_of: Content, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(StudyError) as caught:
        study_of(content_of(**changes), "small.yaml")
    assert named in str(caught.value)
    assert str(caught.value).startswith("small.yaml: ")
    assert "Fix: " in str(caught.value)


def test_a_file_that_is_missing_or_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(StudyError, match=r"broken\.yaml: no YAML"):
        read_study(broken)


def test_the_committed_studies_can_be_read(repo_root: Path) -> None:
    files = sorted((repo_root / "docs" / "study").glob("*.yaml"))
    assert files
    for file in files:
        assert read_study(file).name == file.stem
