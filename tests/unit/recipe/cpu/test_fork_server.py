"""Processes of the fork server beside those of plain Python: real processes, small modules."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recipe.cpu import environment, python_command
from recipe.cpu.forked_python import (
    ACCEPTED,
    SOCKET_VARIABLE,
    STATUS_BYTES,
    read_request,
    request_of,
)
from recipe.cpu.launch import fork_server

LIMIT_S = 30.0
REPORT = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "orig": sys.orig_argv[1:],
    "variable": os.environ.get("COLOUR"), "warm": "tabnanny" in sys.modules,
    "name": __name__, "input": sys.stdin.read(),
}))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    os.environ.update({key: value for key, value in environment().items() if key not in os.environ})
    with fork_server(modules=["tabnanny"]):
        yield


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(REPORT)
    return path


def ran(*arguments: str, python: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python, *arguments],
        env=os.environ | environment() | variables,
        input="from stdin",
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


@pytest.mark.usefixtures("server")
def test_a_forked_process_sees_what_a_plain_one_sees_but_has_its_imports(script: Path) -> None:
    call = (str(script), "one", "two words")
    forked, plain = (
        json.loads(ran(*call, python=python, COLOUR="red\nor blue").stdout)
        for python in (python_command(), [sys.executable])
    )
    assert forked.pop("warm") and not plain.pop("warm")
    assert forked == plain
    assert forked["variable"] == "red\nor blue"


@pytest.mark.usefixtures("server")
def test_a_module_runs_as_main(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(script.parent)
    result = json.loads(ran("-m", "program", "x", python=python_command()).stdout)
    assert result["name"] == "__main__"
    assert result["argv"] == [str(script), "x"]
    assert result["warm"]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("ending", "status"),
    [("sys.exit(7)", 7), ("raise ValueError('no')", 1), ("os.kill(os.getpid(), 9)", 137)],
)
def test_the_exit_status_is_that_of_the_process(tmp_path: Path, ending: str, status: int) -> None:
    script = tmp_path / "ends.py"
    script.write_text(f"import atexit, os, sys\natexit.register(print, 'at exit')\n{ending}\n")
    result = ran(str(script), python=python_command())
    assert result.returncode == status
    assert ("at exit" in result.stdout) == (status != 137)
    assert ("ValueError: no" in result.stderr) == (status == 1)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_client_ends_the_process(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "waits.py"
    script.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    client = subprocess.Popen(
        [*python_command(), str(script)],
        env=os.environ | environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    pid = int(client.stdout.readline())
    assert pid != client.pid
    client.send_signal(number)
    assert client.wait(LIMIT_S) == (128 + number if number is signal.SIGTERM else -number)
    # Its output ends when the process, which shares it, has ended.
    assert client.stdout.read() == ""
    client.stdout.close()


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """What the block does happens at once in the eyes of the process."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask_for(script: Path, streams: list[int]) -> socket.socket:
    """The connection of a client that has handed `script` over and reads nothing yet."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LIMIT_S)
    connection.connect(os.environ[SOCKET_VARIABLE])
    request = request_of([str(script)], os.environ | environment(), str(script.parent))
    socket.send_fds(connection, [len(request).to_bytes(STATUS_BYTES, "big")], streams)
    connection.sendall(request)
    return connection


@pytest.mark.usefixtures("server")
def test_a_signal_that_comes_after_the_end_of_the_process_is_nobodys(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(
        "import os, time\nprint(os.getpid(), os.getppid(), flush=True)\ntime.sleep(60)\n"
    )
    reads, writes = os.pipe()
    with ask_for(script, [writes] * 3) as connection, os.fdopen(reads) as output:
        os.close(writes)
        pid, parent = map(int, output.readline().split())
        ended = os.pidfd_open(pid)
        with paused(parent):
            os.kill(pid, signal.SIGKILL)
            assert select.select([ended], [], [], LIMIT_S)[0]
            connection.sendall(bytes([signal.SIGTERM]))
        os.close(ended)
        assert connection.recv(len(ACCEPTED)) == ACCEPTED
        assert int.from_bytes(connection.recv(STATUS_BYTES), "big") == 128 + signal.SIGKILL
    assert forked_from(tmp_path) == parent


@pytest.mark.usefixtures("server")
def test_a_signal_that_comes_after_the_end_does_not_run_the_program_again(tmp_path: Path) -> None:
    script = tmp_path / "reads.py"
    script.write_text(
        "import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.read()\nsys.exit(3)\n"
    )
    client = subprocess.Popen(
        [*python_command(), str(script)],
        env=os.environ | environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None and client.stdout is not None
    ended = os.pidfd_open(int(client.stdout.readline()))
    with paused(client.pid):
        client.stdin.close()
        assert select.select([ended], [], [], LIMIT_S)[0]
        forked_from(tmp_path)  # Served after that end, at which the connection was closed.
        client.send_signal(signal.SIGTERM)
    os.close(ended)
    assert client.stdout.read() == ""
    assert client.wait(LIMIT_S) == 3
    client.stdout.close()


@pytest.mark.usefixtures("server")
def test_the_server_outlives_a_client_that_is_gone_before_the_answer(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text("import time\ntime.sleep(60)\n")
    parent = forked_from(tmp_path)
    reads, writes = os.pipe()
    with os.fdopen(reads) as output:
        with paused(parent):
            ask_for(script, [writes] * 3).close()
            os.close(writes)
        # The process that was forked for the client is killed, not left to its end.
        assert select.select([output], [], [], LIMIT_S)[0]
        assert output.read() == ""
    assert forked_from(tmp_path) == parent


def forked_from(folder: Path) -> int:
    """The server's process; fails if it does not serve any more."""
    script = folder / "parent.py"
    script.write_text("import os, sys\nprint(os.getppid(), 'tabnanny' in sys.modules)\n")
    parent, forked = ran(str(script), python=python_command()).stdout.split()
    assert forked == "True"
    return int(parent)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("change", [{"OMP_NUM_THREADS": "3"}, {"RAY_JOB_ID": "02000000"}])
def test_a_process_that_needs_other_imports_is_not_forked(
    script: Path, change: dict[str, str]
) -> None:
    result = json.loads(ran(str(script), python=python_command(), **change).stdout)
    assert not result["warm"]


def test_without_a_server_python_runs_plainly(script: Path) -> None:
    result = json.loads(ran(str(script), python=python_command(), **{SOCKET_VARIABLE: ""}).stdout)
    assert result["argv"] == [str(script)]
    assert not result["warm"]
    gone = ran(str(script), python=python_command(), **{SOCKET_VARIABLE: "/nonexistent/s"})
    assert json.loads(gone.stdout) == result | {"input": "from stdin"}


def test_the_server_ends_with_its_owner_and_takes_its_processes_along(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(script)],
        env=os.environ | environment() | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    os.kill(pid, 0)
    owner.kill()
    owner.wait(LIMIT_S)
    deadline = time.monotonic() + LIMIT_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the process outlives the owner of its server"
        time.sleep(0.05)
    owner.stdout.close()


OWNER = """
import os, subprocess, sys
os.environ.pop("ONLINE_REFINER_FORK_SERVER", None)
from recipe.cpu import python_command
from recipe.cpu.launch import fork_server
with fork_server(modules=["tabnanny"]):
    subprocess.run([*python_command(), sys.argv[1]])
"""


def test_requests_come_back_as_they_were() -> None:
    arguments, variables = ["-m", "a.b", "", "ü\udcff"], {"A": "=1=\n", "B": ""}
    assert read_request(request_of(arguments, variables, "/tmp")) == (arguments, variables, "/tmp")


@pytest.mark.parametrize(("ending", "printed"), [("", ""), ("raise ValueError('no')", "a warning")])
def test_what_an_import_prints_is_shown_only_if_one_fails(
    tmp_path: Path, ending: str, printed: str
) -> None:
    (tmp_path / "noisy.py").write_text(f"import sys\nprint('a warning', file=sys.stderr)\n{ending}")
    owner, writes = os.pipe()
    os.close(writes)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # Any free abstract address.
        listener.listen()
        passed = [listener.fileno(), owner]
        result = subprocess.run(
            [sys.executable, "-m", "recipe.cpu.fork_server", *map(str, passed), "noisy"],
            env=os.environ | environment() | {"PYTHONPATH": str(tmp_path)},
            pass_fds=passed,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    os.close(owner)
    assert result.returncode == bool(ending)
    assert result.stderr.startswith(printed) and bool(result.stderr) == bool(printed)
