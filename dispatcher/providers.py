"""Who is there to ask: every vendor that is known, looked at all at once, within a bound.

Nobody is asked but servers on this machine, and clouds that have a key here: these for the list of
their models, which costs nothing and tells whether the key is taken.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

import attrs

from llmdispatcher import stock
from llmdispatcher.models.errors import (
    ConfigError,
    DispatcherError,
    ExecutableNotFound,
    Unreachable,
)
from llmdispatcher.vendors.contract import Engine, Finder, State, Status, VendorSpec
from llmdispatcher.vendors.http.preset import Preset, row
from llmdispatcher.vendors.http.vendor import HttpVendor

PROBE_S = 1.8
"""For all together; with the look around, two seconds in all."""

POLL_S = 0.005

COUNT_S = 0.2
"""For counting files in the folders of this machine, of which none is read."""

LOCAL = ("ollama", "lmstudio", "llama-server", "localai", "vllm")
"""Servers that are told to be missing, where they are."""


class Standing(StrEnum):
    """What is known of a vendor now."""

    ANSWERS = "answers"
    READY = "ready"
    """It runs in a process of ours, which the first request starts."""
    NOT_RUNNING = "not running"
    KEY_MISSING = "key missing"
    BROKEN = "broken"
    """It is there, and cannot be used; ``detail`` says why."""


@attrs.frozen(kw_only=True)
class Provider:
    """A vendor as it is now."""

    name: str
    standing: Standing
    local: bool
    """It runs on this machine."""
    detail: str = ""
    """Why, or what to do."""
    address: str = ""
    latency_s: float | None = None
    """Until it had told its models, or that it is well."""
    models: int | None = None
    priority: int | None = None
    """Of a vendor that was configured."""


Probe = Callable[[float], Provider]
"""Looks at one vendor until a moment on the monotonic clock; never raises a DispatcherError."""

Subject = tuple[str, bool, Probe]
"""A vendor's name, whether it runs on this machine, and how to look at it."""


def look(specs: Sequence[VendorSpec] = (), limit_s: float = PROBE_S) -> tuple[Provider, ...]:
    """Look at all vendors at once: at those that are given, or else at all that are known.

    Who has not answered within ``limit_s`` seconds is broken.
    """
    known: list[Provider] = []
    probes: list[Subject] = [_probe_of(spec) for spec in specs]
    if not specs:
        known, probes = _everybody()
    until_s = time.monotonic() + limit_s
    looks = [_Look(probe, until_s) for probe in probes]
    for each in looks:
        each.join(max(0.0, until_s - time.monotonic()))
    found = [each.told(limit_s) for each in looks]
    return tuple(found) if specs else tuple(sorted([*found, *known], key=_place))


def _place(provider: Provider) -> tuple[bool, int, str]:
    """Those on this machine first, and of each kind those that can be used."""
    return not provider.local, [*Standing].index(provider.standing), provider.name


class _Look(threading.Thread):
    """At one vendor, in a thread of its own."""

    def __init__(self, probe: Subject, until_s: float) -> None:
        self.vendor, self._local, self._probe = probe
        super().__init__(name=f"llmdispatcher-probe-{self.vendor}", daemon=True)
        self._until_s = until_s
        self._found: Provider | None = None
        self.start()

    def run(self) -> None:
        self._found = self._probe(self._until_s)

    def told(self, limit_s: float) -> Provider:
        """Return what was found until now."""
        return self._found or Provider(
            name=self.vendor,
            standing=Standing.BROKEN,
            local=self._local,
            detail=f"no answer within {limit_s:g} s",
        )


def _everybody() -> tuple[list[Provider], list[Subject]]:
    """Return those of whom nothing need be asked, and probes of the others."""
    known: list[Provider] = []
    probes: list[Subject] = [(stock.EMBEDDED, True, _embedded), (stock.FILES, True, _files)]
    running = stock.servers()
    probes += map(_probe_of, running)
    there = {spec.name for spec in running}
    for name in (name for name in LOCAL if name not in there):
        spec = Preset(name)()
        if name == "ollama" and _is_elsewhere():
            probes.append(_probe_of(spec))
        else:
            known.append(_not_running(name))
    for name in stock.CLOUDS:
        unusable = _unusable(name)
        if unusable is None:
            probes.append(_probe_of(Preset(name)()))
        else:
            known.append(unusable)
    return known, probes


def _not_running(name: str) -> Provider:
    where = row(name).base_url
    return Provider(
        name=name,
        standing=Standing.NOT_RUNNING,
        local=True,
        detail=f"nobody at {where.removeprefix('http://')}",
        address=where,
    )


def _is_elsewhere() -> bool:
    """Whether OLLAMA_HOST says that Ollama is not where it usually is."""
    from llmdispatcher.vendors.http import environment  # noqa: PLC0415 - on first use

    return bool(environment.ollama_host())


def _unusable(cloud: str) -> Provider | None:
    """Return a cloud that cannot be asked, with the reason."""
    made = Provider(name=cloud, standing=Standing.BROKEN, local=False)
    try:
        keyed = stock.has_key(cloud)
    except ConfigError as error:
        return attrs.evolve(made, detail=str(error))
    if not keyed:
        names = " or ".join(row(cloud).key_env)
        return attrs.evolve(made, standing=Standing.KEY_MISSING, detail=f"set {names}")
    if cloud in stock.UNPLACED:
        way_out = f"its address is your own: --vendor {cloud} --base-url URL"
        return attrs.evolve(made, detail=way_out)
    return None


# -- probes ------------------------------------------------------------------------------------


def _probe_of(spec: VendorSpec) -> Subject:
    return spec.name, _is_usually_local(spec), lambda until_s: _probed(spec, until_s)


def _probed(spec: VendorSpec, until_s: float) -> Provider:
    """Start a vendor's engine, and ask it for its models and how it is."""
    priority = getattr(spec, "priority", None)
    made = Provider(
        name=spec.name,
        standing=Standing.BROKEN,
        local=False,
        priority=priority if isinstance(priority, int) else None,
    )
    try:
        _check_file(spec)
        engine = spec.start(lambda _: None)
    except DispatcherError as error:
        return attrs.evolve(made, detail=str(error))
    try:
        told = _asked(attrs.evolve(made, address=_address(spec)), engine, until_s)
        cards = engine.cards()
        local = all(card.local for card in cards) if cards else _is_usually_local(spec)
        return attrs.evolve(told, local=local, models=len(cards) if cards else told.models)
    finally:
        engine.close()


def _check_file(spec: VendorSpec) -> None:
    """Raise the error that loading a file would begin with: it is missing, or has no engine."""
    if isinstance(spec, HttpVendor):
        return
    from llmdispatcher.vendors.llamacpp import choice  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.llamacpp.vendor import LlamaCpp  # noqa: PLC0415 - as above

    if isinstance(spec, LlamaCpp):
        there = choice.look(has_worker_command=spec.worker_command is not None)
        choice.choose(spec.engine, spec.executable, spec.isolation, there)
        spec.plan()


def _asked(made: Provider, engine: Engine, until_s: float) -> Provider:
    """Wait until an engine knows its models and how it is, and tell that."""
    from llmdispatcher.vendors.http.engine import HttpEngine  # noqa: PLC0415 - few need it

    if isinstance(engine, HttpEngine) and engine.problem:
        return attrs.evolve(made, standing=Standing.KEY_MISSING, detail=engine.problem)
    began_s = time.monotonic()
    if isinstance(engine, Finder):
        with contextlib.suppress(TimeoutError):
            engine.found(afresh=True).result(max(0.0, until_s - time.monotonic()))
    status = engine.status()
    while isinstance(engine, HttpEngine) and status.state is State.ABSENT:
        if time.monotonic() > until_s:
            return attrs.evolve(made, detail="no answer in time")
        time.sleep(POLL_S)
        status = engine.status()
    standing, detail = _standing(status, getattr(engine, "error", lambda: None)())
    answered = standing is Standing.ANSWERS
    return attrs.evolve(
        made,
        standing=standing,
        detail=detail,
        latency_s=time.monotonic() - began_s if answered else None,
    )


def _standing(status: Status, error: object) -> tuple[Standing, str]:
    """Return what a state means to somebody who asks."""
    match status.state:
        case State.READY | State.BUSY | State.LOADING:
            return Standing.ANSWERS, status.detail
        case State.ABSENT:
            return Standing.READY, status.detail
    if isinstance(error, Unreachable):
        return Standing.NOT_RUNNING, status.detail
    return Standing.BROKEN, status.detail


def _address(spec: VendorSpec) -> str:
    """Return where a vendor over HTTP is, without what may be a password in it."""
    if not isinstance(spec, HttpVendor):
        return ""
    from llmdispatcher.vendors.http.address import shown  # noqa: PLC0415 - on first use

    return str(shown(spec.base_url or row(spec.preset).base_url))


def _is_usually_local(spec: VendorSpec) -> bool:
    if not isinstance(spec, HttpVendor):
        return False
    return row(spec.preset).local if spec.local is None else spec.local


def _embedded(_: float) -> Provider:
    """Return whether the embedded model could run."""
    made = Provider(name=stock.EMBEDDED, standing=Standing.READY, local=True, models=1)
    return _with_engine(made)


def _files(_: float) -> Provider:
    """Return whether files could run, and how many there are."""
    from llmdispatcher.named import here  # noqa: PLC0415 - on first use
    from llmdispatcher.vendors.llamacpp.stores.look import names  # noqa: PLC0415
    from llmdispatcher.vendors.llamacpp.stores.walk import Walk  # noqa: PLC0415

    walk = Walk(limit_s=COUNT_S)
    count = sum(not each.problem for _, each in names(here(), walk))
    made = Provider(
        name=stock.FILES,
        standing=Standing.READY,
        local=True,
        models=count,
        detail=("" if count else "no GGUF file was found") or "; ".join(walk.notes[:1]),
    )
    return _with_engine(made)


def _with_engine(made: Provider) -> Provider:
    """Return the same, unless nothing is installed that runs it."""
    from llmdispatcher.vendors.llamacpp import choice  # noqa: PLC0415 - on first use

    try:
        choice.choose("auto", None, "process", choice.look())
    except ExecutableNotFound as error:
        return attrs.evolve(made, standing=Standing.BROKEN, detail=str(error))
    return made
