"""What every test runs under: loopback only, and nothing left behind."""

from __future__ import annotations

import gc
import ipaddress
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from steady_tracing import settle
from tiny_gguf import tiny_model
from waits import WAIT_S

from llmdispatcher import BreakerPolicy, RetryPolicy, patience
from llmdispatcher.breakers import Breakers

SETTLE_S = 60.0
"""How long threads that were told to end may take, on a machine that is busy with something else.
A test that leaves none waits for none of it."""

# how long an example takes, and how long it takes to think of one, says nothing about the code
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
settings.register_profile("reduced", settings.get_profile("untimed"), max_examples=40)


settle()


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples where the full counts are not asked for either."""
    if "not soak" in config.option.markexpr:
        settings.load_profile("reduced")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all but an n-th part of the variants of a test marked ``sampled(n)`` to soak.

    The first one stays. Of the others names decide: each n-th would leave out one value of an axis.
    """
    seen: set[str] = set()
    for item in items:
        mark = item.get_closest_marker("sampled")
        if mark is not None:
            name = item.nodeid.partition("[")[0]
            if name in seen and zlib.crc32(item.nodeid.encode()) % mark.args[0]:
                item.add_marker(pytest.mark.soak)
            seen.add(name)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that would connect to anything but this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            assert ipaddress.ip_address(address[0]).is_loopback, f"a test connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have plans wait for whoever they stopped as long as a slow machine takes to end it."""
    monkeypatch.setattr("llmdispatcher.fork.SETTLE_S", WAIT_S)
    monkeypatch.setattr("llmdispatcher.heat.SETTLE_S", WAIT_S)


@pytest.fixture(autouse=True)
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every vendor asked once by a request, and none left alone by the next ones.

    Most rules are about one attempt. Those about several have a fixture of this name, that does
    nothing, and the product's own defaults with it.
    """
    monkeypatch.setattr(patience, "RETRY", RetryPolicy(same_target=0, max_wait_s=0))
    monkeypatch.setattr(patience, "BREAKER", BreakerPolicy(failures=1000))
    monkeypatch.setattr(Breakers, "report", lambda *_, **__: None)


@pytest.fixture(autouse=True, scope="module")
def _what_is_old_is_not_collected() -> None:
    """Have garbage collections look at what a module's own tests have made.

    Some tests collect garbage at their end, to see that nothing is left, and would look each time
    at everything that thousands of others need.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is written for later lives of a program out of the user's folders."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RUNTIME", "CRASH", "CACHE"):
            patch.setenv(f"LLMDISPATCHER_{name}_DIR", str(folder / name.lower()))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.delenv("LLMDISPATCHER_CONFIG", raising=False)
        yield


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + SETTLE_S
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        for thread in left:
            if thread.ident is not None:  # else it is only beginning
                thread.join(0.05)
        time.sleep(0.001)
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def _ends_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep connections whose answers end late, as they do where the server has its turn late."""
    monkeypatch.setattr("llmdispatcher.vendors.http.call.END_S", SETTLE_S)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 100,000 random weights, whose context is short enough to be filled in no time."""
    return tiny_model(tmp_path_factory.mktemp("models") / "small.gguf", vocab=600, context=512)


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 5 million random weights: about a millisecond a token, and it never ends early."""
    return tiny_model(
        tmp_path_factory.mktemp("models") / "slow.gguf",
        vocab=2000,
        context=4096,
        width=256,
        layers=6,
        feed_forward=704,
    )
