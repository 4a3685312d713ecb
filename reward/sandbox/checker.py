"""HumanEval-form problems: assertions in one process, the candidate in another.

    checker (test code, expected values) ──calls──> candidate (the program)
                                         <─results─

Both are confined children of the zygote; neither can reach the other but through this connection.
The test code sees plain values only (`codec`), so no object of the candidate's can claim to equal
an expected one, and the candidate cannot touch the assertions, their frames or the outcome. What
remains in its hands is what it answers. Arguments are copies; lists, dictionaries, sets and byte
arrays that the candidate changed in place are changed in the checker too.
"""

import builtins
import json
import os
import socket
import types
from collections import deque
from typing import Any

from reward.sandbox import codec, runner, wire
from reward.sandbox.preamble import call_namespace
from reward.sandbox.runner import Record
from reward.sandbox.wire import PASSED, End

DIED = "died"

_MUTABLE = (list, dict, set, bytearray, deque)


def serve_candidate(source: bytes, sock: socket.socket, record: Record) -> None:
    """Compile and run the program, then answer calls of its functions; never returns."""
    code = runner.compile_program(source, record)
    namespace = runner.fresh_main({})
    runner.fresh_streams()
    try:
        exec(code, namespace)
    except BaseException as error:  # whatever untrusted code raises
        memory = isinstance(error, MemoryError)
        record.end(0, End.MEMORY if memory else End.EXCEPTION, type(error).__name__)
        os._exit(1)
    wire.send(sock, {"ready": True}, [])
    while True:
        try:
            header, _ = wire.receive(sock)
        except wire.ConnectionLost:
            os._exit(0)
        wire.send(sock, _call(namespace, header), [])


def _call(namespace: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    name = header["function"]
    try:
        if name not in namespace:
            raise NameError(f"name {name!r} is not defined")
        arguments, named = codec.loads(header["arguments"])
        result = namespace[name](*arguments, **named)
        return {"result": codec.dumps(result), "arguments": codec.dumps(arguments)}
    except BaseException as error:  # whatever untrusted code raises
        return {"error": type(error).__name__, "text": _text(error)}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:  # an exception class of the program's own
        return ""


def run_checker(source: bytes, entry: str, sock: socket.socket, output_fd: int) -> None:
    """Run the test program against the candidate behind `sock`; never returns.

    The outcome goes to `output_fd`, which the candidate's process does not have, as JSON: [End.OK,
    PASSED], [End.OK, what failed], or another `End` where the candidate itself raised or died.
    """
    parts = json.loads(source)
    line = Line(sock)
    namespace = runner.fresh_main(call_namespace())
    runner.fresh_streams()
    end, detail = End.OK, PASSED
    try:
        line.receive()  # the program has been compiled and run to its end
        _run_prompt(parts["prompt"], namespace)
        test = compile(parts["test"], "<test>", "exec")
        for name in _names(test) - namespace.keys() - vars(builtins).keys() | {entry}:
            namespace[name] = Candidate(line, name)
        exec(test, namespace)
        check = namespace.get("check")
        if isinstance(check, types.FunctionType):
            if "check" in _names(check.__code__):  # no test calls itself: the program's is meant
                namespace["check"] = Candidate(line, "check")
            check(namespace[entry])
    except CandidateDied:
        end, detail = End.EXCEPTION, DIED
    except BaseException as error:  # an assertion, or the test code tripping over a wrong result
        end, detail = End.OK, type(error).__name__
        if error is line.raised:
            end = End.MEMORY if isinstance(error, MemoryError) else End.EXCEPTION
    os.write(output_fd, json.dumps([end, detail]).encode())
    os._exit(0)


def _run_prompt(prompt: str, namespace: dict[str, Any]) -> None:
    """Define what the prompt defines beside the function to complete: helpers and imports."""
    try:
        code = compile(prompt, "<prompt>", "exec")
    except SyntaxError:
        return  # the prompt stops inside a statement, and so defines nothing
    exec(code, namespace)


class CandidateDied(BaseException):
    """The candidate's process ended in the middle of a call."""


class Line:
    """The connection to the candidate's process, and what came last over it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raised: BaseException | None = None

    def receive(self) -> dict[str, Any]:
        try:
            return wire.receive(self.sock)[0]
        except wire.ConnectionLost as error:
            raise CandidateDied from error

    def ask(self, header: dict[str, Any]) -> dict[str, Any]:
        try:
            wire.send(self.sock, header, [])
        except OSError as error:
            raise CandidateDied from error
        return self.receive()


class Candidate:
    """A function of the candidate's as the test code sees it."""

    def __init__(self, line: Line, name: str) -> None:
        self._line, self._name = line, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._line.raised = None
        sent = codec.dumps((arguments, named))
        reply = self._line.ask({"function": self._name, "arguments": sent})
        if "error" in reply:
            self._line.raised = _exception(str(reply["error"]), str(reply.get("text", "")))
            raise self._line.raised
        _write_back(arguments, codec.loads(reply["arguments"]))
        return codec.loads(reply["result"])


def _names(code: types.CodeType) -> set[str]:
    """All names that `code` and the functions in it look up."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _exception(name: str, text: str) -> BaseException:
    """The built-in exception of that name, for tests that expect one, else a RuntimeError."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass  # UnicodeDecodeError and others that take more arguments
    return RuntimeError(f"{name}: {text}")


def _write_back(arguments: tuple[Any, ...], after: list[Any]) -> None:
    """Repeat in `arguments` what the candidate did to its copies."""
    for mine, theirs in zip(arguments, after, strict=True):
        if type(mine) not in _MUTABLE or type(mine) is not type(theirs) or mine == theirs:
            continue
        mine.clear()
        if isinstance(mine, dict | set):
            mine.update(theirs)
        else:
            mine.extend(theirs)
