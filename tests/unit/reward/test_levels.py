"""The ladder of isolation: probed for real, required by config, and honest about itself."""

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_input_output
from reward.sandbox import client, landlock
from reward.sandbox.client import IsolationError, SandboxError, ZygoteClient
from reward.sandbox.wire import Level
from reward.selftest import PROBES, probe_all
from reward.verdict import Verdict

READ_FILE = parse_input_output({"inputs": ["/etc/passwd"], "outputs": ["True"]})


def _judge(level: int) -> Judge:
    config = JudgeConfig(workers=1, max_level=level, min_level=0, strict=True, timeout_s=0.3)
    return Judge(config)


def test_without_any_wall_the_attacks_get_through(capsys: pytest.CaptureFixture[str]) -> None:
    """The probes are real: what a level stops is not stopped by something else."""
    with _judge(0) as judge:
        assert judge.level == Level.NONE
        missing = probe_all(judge)
    assert {probe.name for probe in missing} == {
        probe.name for probe in PROBES if probe.since > Level.NONE
    }
    assert "MISSING  TCP is closed" in capsys.readouterr().out


def test_the_level_reached_keeps_its_promises() -> None:
    with _judge(3) as judge:
        assert [p.name for p in probe_all(judge) if p.since <= judge.level] == []


@pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
def test_landlock_is_what_keeps_files_from_being_read() -> None:
    code = "print(len(open(input()).read()) > 0)"
    with _judge(1) as seccomp_only, _judge(2) as with_landlock:
        assert seccomp_only.judge(READ_FILE, code).verdict == Verdict.ACCEPTED
        assert with_landlock.judge(READ_FILE, code).verdict == Verdict.RUNTIME_ERROR


def test_less_isolation_than_required_is_refused_with_the_remedy() -> None:
    with pytest.raises(IsolationError, match=r"level 1 here, min_level=2 is required.*selftest"):
        ZygoteClient(min_level=Level.LANDLOCK, max_level=Level.SECCOMP)


def test_level_zero_must_be_asked_for() -> None:
    with pytest.raises(IsolationError):
        ZygoteClient(max_level=Level.NONE)


def test_without_namespaces_the_level_is_lower_and_the_reason_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbidden = "import reward.sandbox.isolation as i; i._NAMESPACES = -1; "
    boot = client._BOOT.replace("from reward", forbidden + "from reward", 1)
    monkeypatch.setattr(client, "_BOOT", boot)
    with ZygoteClient(min_level=Level.SECCOMP) as zygote:
        assert zygote.level < Level.FULL
        assert "unshare" in zygote.why_no_namespaces
    with pytest.raises(IsolationError, match="unshare"):
        ZygoteClient(min_level=Level.FULL)


def test_a_zygote_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(SandboxError, match="did not start"):
        ZygoteClient()
