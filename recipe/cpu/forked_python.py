"""A stand-in for `python` that asks the fork server for a process with its imports already made.

`python -I -S recipe/cpu/forked_python.py ARGUMENTS` behaves as `python ARGUMENTS` does for a module
(-m) or a script: same environment, folder, standard streams, signals and exit status. Ray starts
its workers with it (`py_executable` of a runtime environment). If no server answers, or its imports
were made in another environment, it becomes that plain `python` process.

Runs before anything else of a process does, so it imports little, and nothing of this project.
"""

import os
import signal
import socket
import sys
from contextlib import suppress

SOCKET_VARIABLE = "ONLINE_REFINER_FORK_SERVER"
"""Environment variable with the path of the server's socket."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ACCEPTED = b"+"
STATUS_BYTES = 4
LOOK_EVERY_S = 1.0


def main() -> None:
    """Run the command line in a forked process; see the module."""
    arguments = sys.argv[1:]
    path = os.environ.get(SOCKET_VARIABLE)
    if path and arguments and (arguments[0] == "-m" or not arguments[0].startswith("-")):
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                follow(connection, arguments)
        except OSError:
            pass  # The server has ended before it accepted.
    os.execv(sys.executable, [sys.executable, *arguments])


def follow(connection: socket.socket, arguments: list[str]) -> None:
    """Hand the command line over, forward signals and exit as the process does.

    Returns if the server refuses. Ends, and the process with it, when its own parent has ended.
    """
    request = request_of(arguments, dict(os.environ), os.getcwd())
    size = len(request).to_bytes(STATUS_BYTES, "big")
    socket.send_fds(connection, [size], [0, 1, 2])
    connection.sendall(request)
    if connection.recv(1) == ACCEPTED:
        os._exit(_status_of(connection))


def _status_of(connection: socket.socket) -> int:
    """How the forked process ended; 1 if the server or this process's parent ended before it."""

    def forward(number: int, _: object) -> None:
        with suppress(OSError):  # It has ended: the connection is closed.
            connection.sendall(bytes([number]))

    for number in FORWARDED:
        signal.signal(number, forward)
    connection.settimeout(LOOK_EVERY_S)
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            status = connection.recv(STATUS_BYTES)
        except TimeoutError:
            continue
        except OSError:
            break
        return int.from_bytes(status, "big") if len(status) == STATUS_BYTES else 1
    return 1


def request_of(arguments: list[str], environment: dict[str, str], folder: str) -> bytes:
    """The request as NUL-separated text: folder, number of arguments, arguments, KEY=VALUE."""
    variables = [f"{key}={value}" for key, value in environment.items()]
    fields = [folder, str(len(arguments)), *arguments, *variables]
    return "\0".join(fields).encode("utf-8", "surrogateescape")


def read_request(request: bytes) -> tuple[list[str], dict[str, str], str]:
    """What `request_of` was given."""
    folder, count, *fields = request.decode("utf-8", "surrogateescape").split("\0")
    arguments, variables = fields[: int(count)], fields[int(count) :]
    return arguments, dict(variable.split("=", 1) for variable in variables), folder


if __name__ == "__main__":
    main()
