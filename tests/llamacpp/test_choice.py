"""Which engine runs a GGUF file, by what was asked for and what is installed."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.llamacpp import choice
from llmdispatcher.vendors.llamacpp.choice import Kind, There, choose
from llmdispatcher.vendors.llamacpp.loading import TESTED_VERSIONS

TESTED = TESTED_VERSIONS[-1]
PROGRAM = Path("/usr/bin/llama-server")

EVERYTHING = [
    There(binding=binding, prebuilt=prebuilt, executable=executable, starts_python=python)
    for binding, prebuilt, executable, python in itertools.product(
        (None, "", TESTED, "0.2.90"), (True, False), (PROGRAM, None), (True, False)
    )
]


@pytest.mark.parametrize(
    ("there", "kind"),
    [
        (There(binding=TESTED, prebuilt=True, executable=PROGRAM), Kind.WORKER),
        (There(binding="", prebuilt=True, executable=PROGRAM), Kind.WORKER),
        (There(binding="0.2.90", prebuilt=True, executable=PROGRAM), Kind.PREBUILT),
        (There(prebuilt=True, executable=PROGRAM), Kind.PREBUILT),
        (There(executable=PROGRAM), Kind.SERVER),
        (There(binding="0.2.90", executable=PROGRAM), Kind.SERVER),
        (
            There(binding=TESTED, prebuilt=True, executable=PROGRAM, starts_python=False),
            Kind.SERVER,
        ),
    ],
)
def test_auto_takes_the_first_that_is_there(there: There, kind: Kind) -> None:
    """Our own worker, then the wheel, then a program; each where it can be used."""
    chosen = choose("auto", None, "process", there)

    assert chosen.kind is kind
    assert chosen.executable == (PROGRAM if kind is Kind.SERVER else None)


@pytest.mark.parametrize("isolation", ["process", "thread"])
@pytest.mark.parametrize("engine", ["auto", "server"])
@pytest.mark.parametrize("there", EVERYTHING)
def test_an_executable_that_is_named_is_taken(engine: str, isolation: str, there: There) -> None:
    """Whatever else is installed; whether it is one is for its host to find out."""
    given = Path("/opt/llama")

    chosen = choose(engine, given, isolation, there)

    assert (chosen.kind, chosen.executable) == (Kind.SERVER, given)
    assert "named" in chosen.why


@pytest.mark.parametrize("engine", ["auto", "worker", "server"])
@pytest.mark.parametrize("there", EVERYTHING)
def test_nobody_is_moved_into_this_process(engine: str, there: There) -> None:
    """Who asked for a process of its own gets one, or an error that says what to install."""
    try:
        chosen = choose(engine, None, "process", there)
    except ExecutableNotFound as error:
        assert "install" in str(error)  # noqa: PT017 - either is right, which is the rule
    else:
        assert chosen.kind is not Kind.THREAD
        assert chosen.why


def test_a_thread_is_taken_where_it_was_asked_for() -> None:
    """And where the binding is missing, the model runs apart from this process all the same."""
    assert choose("auto", None, "thread", There(binding=TESTED)).kind is Kind.THREAD
    assert choose("worker", None, "thread", There(binding=TESTED)).kind is Kind.THREAD
    assert choose("auto", None, "thread", There(prebuilt=True)).kind is Kind.PREBUILT
    frozen = There(binding=TESTED, starts_python=False)
    assert choose("auto", None, "thread", frozen).kind is Kind.THREAD


def test_a_server_is_not_replaced_by_a_worker() -> None:
    """Who asked for one engine never gets the other."""
    assert choose("server", None, "process", There(binding=TESTED, prebuilt=True)).kind is (
        Kind.PREBUILT
    )
    with pytest.raises(ExecutableNotFound, match="engine='server' needs a llama-server"):
        choose("server", None, "process", There(binding=TESTED))
    with pytest.raises(ExecutableNotFound, match="engine='worker' needs llama-cpp-python"):
        choose("worker", None, "process", There(prebuilt=True, executable=PROGRAM))


def test_an_executable_for_the_worker_is_a_mistake() -> None:
    """It would be ignored."""
    with pytest.raises(BadRequest, match="executable"):
        choose("worker", PROGRAM, "process", There(binding=TESTED))


def test_without_anything_three_ways_to_install_one_are_told() -> None:
    """What is missing, and each command with what it costs."""
    with pytest.raises(ExecutableNotFound) as caught:
        choose("auto", None, "process", There())

    told = str(caught.value)
    assert "there is no llama_cpp, no xllamacpp, no llama-server on PATH" in told
    assert "pip install 'llmdispatcher[llamacpp]' (compiles" in told
    assert "C++ compiler" in told
    assert "pip install 'llmdispatcher[prebuilt]'" in told
    assert "llama-server is on PATH (brew install llama.cpp" in told


def test_the_reason_names_what_was_passed_over() -> None:
    """A version that was not tested with is not taken, and one reads why."""
    chosen = choose("auto", None, "process", There(binding="0.2.90", prebuilt=True))

    assert "there is llama-cpp-python 0.2.90" in chosen.why
    assert "xllamacpp is installed" in chosen.why


# -- looking -----------------------------------------------------------------------------------


def test_looking_finds_what_is_installed_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binding's version comes from its metadata, the program from PATH."""
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "xllamacpp.py").write_text("raise SystemError")
    monkeypatch.syspath_prepend(str(tmp_path))

    there = choice.look()

    assert there == There(binding=TESTED, prebuilt=True, executable=program)
    assert "xllamacpp" not in sys.modules


def test_looking_survives_what_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is blocked, as tests and applications do it, is not there."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    assert choice.look() == There(starts_python=False)
    assert choice.look(has_worker_command=True).starts_python
