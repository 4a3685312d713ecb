"""A hub of models that does not answer is asked once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from huggingface_hub import constants
from omegaconf import DictConfig

from recipe.online_refiner.preflight.rules import faults_of
from recipe.online_refiner.resolve import hub
from recipe.online_refiner.resolve.resolving import resolve

Compose = Callable[..., DictConfig]
NAME = "somebody/no-such-model"


@pytest.fixture
def asks_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if HF_HUB_OFFLINE were not set; what is switched in the test is switched back."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.hub_answers.cache_clear()


@pytest.fixture
def closed_hub(asks_hubs: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is a port at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{held.getsockname()[1]}")
        yield
    hub.hub_answers.cache_clear()


def test_without_a_hub_the_cache_alone_is_read_and_the_words_say_so(
    closed_hub: None, composed: Compose, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = resolve(composed(f"actor_rollout_ref.model.path={NAME}"))
    assert constants.HF_HUB_OFFLINE
    faults = [fault for fault in faults_of(plan) if "config.json could not be read" in fault]
    assert any("no hub was asked" in fault and "HF_HOME" in fault for fault in faults)
    assert any(f"hf download {NAME}" in fault for fault in faults)
    assert "Retrying" not in capfd.readouterr().err


def test_folders_ask_no_hub(closed_hub: None, composed: Compose) -> None:
    resolve(composed())
    assert not constants.HF_HUB_OFFLINE
    assert hub.hub_answers.cache_info().currsize == 0


def test_a_hub_that_answers_anything_is_one(
    asks_hubs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(
                b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert hub.hub_answers()
        thread.join()
    hub.hub_answers.cache_clear()


def test_names_of_folders_are_no_names_of_a_hubs() -> None:
    assert hub.looks_local("/models/x")
    assert hub.looks_local("./x")
    assert hub.looks_local("~/x")
    assert not hub.looks_local(NAME)
