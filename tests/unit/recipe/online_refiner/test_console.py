"""Our log in processes whose root logger belongs to others."""

import logging

import pytest

from recipe.online_refiner.run.console import OUR_PACKAGES, show_our_log


def test_our_log_is_seen_whatever_an_import_did_to_the_root_logger(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.ERROR)
    ours = [logging.getLogger(name) for name in OUR_PACKAGES]
    before = [(one.level, one.handlers, one.propagate) for one in ours]
    try:
        show_our_log()
        logging.getLogger("refiner_worker.replicas").info("server %d is up", 1)
        logging.getLogger("verl.trainer").info("not ours")
    finally:
        for one, (level, handlers, propagate) in zip(ours, before, strict=True):
            one.level, one.handlers, one.propagate = level, handlers, propagate
    shown = capsys.readouterr().err
    assert shown.startswith("INFO:") and shown.endswith(":server 1 is up\n")
