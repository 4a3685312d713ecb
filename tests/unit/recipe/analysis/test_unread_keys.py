"""Which keys of a run's configuration it takes no notice of."""

from recipe.analysis.unread_keys import is_read
from recipe.online_refiner.method.registry import CONSTRAINTS


def test_a_constraints_own_keys_are_read_by_it_alone_whichever_are_built_in() -> None:
    named = {one.name for one in CONSTRAINTS.values() if one.section is not None}
    assert named
    for name in named:
        key = f"constraint.{name}.any"
        assert is_read(key, {"constraint.kind": name})
        assert not is_read(key, {"constraint.kind": "none"})
    # Of a kind that this version does not know it cannot be told.
    assert is_read("constraint.chord.peak", {"constraint.kind": "mine.py:Mine"})
    assert is_read("constraint.mine.peak", {"constraint.kind": "none"})
