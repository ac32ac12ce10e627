"""``llmdispatcher doctor``: what is installed, whether it works, and how to mend what does not.

Looks at one thing after another, none of which can take it down: native code is tried in processes
of its own, and what is missing is told with the command that installs it. Opens no connection.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import attrs

from llmdispatcher.models.errors import DispatcherError, VendorError
from llmdispatcher.vendors.llamacpp import checkup, processor
from llmdispatcher.vendors.llamacpp.checkup import MIB, Finding, Part
from llmdispatcher.vendors.llamacpp.files import gguf
from llmdispatcher.vendors.llamacpp.vendor import embedded

_EXTRA = "pip install 'llmdispatcher[llamacpp]'"

_NEEDED = ("jinja2", "numpy", "psutil")
"""Without these no GGUF file is loaded by llama-cpp-python."""

_WANTED = {
    "llguidance": "replies that follow a schema or a grammar",
    "nvidia-ml-py": "the memory of NVIDIA's GPUs",
    "pillow": "images",
    "platformdirs": "crash reports, and ending processes that an earlier run left",
}
"""And without these something else is missing."""

LEAST_FREE_BYTES = 1024 * MIB
"""With less, no model of use for anything fits beside a running desktop."""

_ASKED = "What is the capital of France?"


@attrs.frozen
class Diagnosis:
    """All that was found."""

    parts: tuple[Part, ...]
    took_s: float

    @property
    def problems(self) -> int:
        """How many findings keep something from working."""
        return sum(finding.serious for part in self.parts for finding in part.findings)


def examine(*, run: bool = False) -> Diagnosis:
    """Look at everything; ``run`` has the embedded model answer a question, too."""
    began_s = time.monotonic()
    parts = [versions(), machine(), *checkup.parts(), packages(), places(), model()]
    if run:
        parts.append(answer())
    return Diagnosis(tuple(parts), time.monotonic() - began_s)


def versions() -> Part:
    """Name this package, Python and the system."""
    from llmdispatcher import __file__, __version__  # noqa: PLC0415 - the package is whole by now

    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    facts = (
        ("llmdispatcher", f"{__version__}, in {Path(__file__).parent}"),
        ("Python", python),
        ("system", system),
    )
    return Part("versions", facts)


def machine() -> Part:
    """Tell processors and memory as a plan counts them."""
    facts = [("processor", processor.name() or "of a name that is not known")]
    logical = f"{os.cpu_count() or 1} logical processors"
    try:
        from llmdispatcher.vendors.llamacpp.limits import probe  # noqa: PLC0415 - loads psutil
        from llmdispatcher.vendors.llamacpp.plan import planning  # noqa: PLC0415 - as above

        memory, planned, room = (
            probe.memory(),
            planning.machine(gpus=False),
            probe.data_room_bytes(),
        )
    except ModuleNotFoundError as error:
        what = f"memory and processors cannot be read: there is no {error.name}"
        return Part(
            "machine", (*facts, ("threads", logical)), (Finding(what, _EXTRA, serious=False),)
        )
    free, total = f"{memory.available_bytes / MIB:,.0f}", f"{memory.total_bytes / MIB:,.0f}"
    facts += [
        ("threads", f"{planned.processors} for a model, of {logical}"),
        ("memory", f"{free} of {total} MiB free, as far as this process may use it"),
        ("for models", f"{planned.available_bytes / MIB:,.0f} MiB"),
    ]
    if room is not None:
        facts.append(("may allocate", f"{room / MIB:,.0f} MiB more (RLIMIT_DATA or RLIMIT_AS)"))
    if planned.available_bytes >= LEAST_FREE_BYTES:
        return Part("machine", tuple(facts))
    what = "there is little memory for a model"
    way = "close other programs, or raise the limit of this process or container"
    return Part("machine", tuple(facts), (Finding(what, way, serious=False),))


def packages() -> Part:
    """Say which of the packages that the engine uses are installed."""
    facts, findings = [], []
    has_binding = _version("llama-cpp-python") is not None
    for name in (*_NEEDED, *_WANTED):
        version = _version(name)
        facts.append((name, version or "not installed"))
        if version is None and has_binding:
            what = f"without {name} there is no {_WANTED.get(name, 'loading of GGUF files')}"
            findings.append(Finding(what, f"pip install {name}", serious=name in _NEEDED))
    return Part("packages", tuple(facts), tuple(findings))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# -- files -------------------------------------------------------------------------------------


def places() -> Part:
    """Say where files are left, and whether there are reports of crashes."""
    from llmdispatcher.vendors.llamacpp import trial_cache  # noqa: PLC0415 - first use
    from llmdispatcher.vendors.llamacpp.child import folders  # noqa: PLC0415 - first use

    facts: list[tuple[str, str]] = []
    findings: list[Finding] = []
    reports: list[Path] = []
    for name, folder, pattern, variable in (
        ("crash reports", folders.crashes, "crash-*.txt", folders.CRASHES),
        ("running children", folders.runtime, "*.json", folders.RUNTIME),
        ("trials that worked", trial_cache.folder, "*.json", trial_cache.VARIABLE),
    ):
        place = _place(folder, variable)
        if isinstance(place, Finding):
            findings += [] if place in findings else [place]
            continue
        found = [*place.glob(pattern)]
        facts.append((name, f"{len(found)} in {place}"))
        reports = found if name == "crash reports" else reports
    if reports:
        what = f"models crashed; the last report is {max(reports)}"
        findings.append(Finding(what, "read it, and delete it when it is done with", serious=False))
    return Part("files", tuple(facts), tuple(findings))


def _place(folder: Callable[[], Path], variable: str) -> Path | Finding:
    """Return a folder, or why it cannot be used."""
    try:
        return folder()
    except ModuleNotFoundError as error:
        what = f"files are left nowhere: there is no {error.name}"
        return Finding(what, _EXTRA, serious=False)
    except OSError as error:
        way = f"let it belong to you alone, or name another folder in {variable}"
        return Finding(f"a folder cannot be used: {error}", way, serious=False)


def model() -> Part:
    """Say whether the embedded model is whole."""
    path = embedded().model_path
    try:
        header = gguf.read_header(path)
    except VendorError as error:
        way = "pip install --force-reinstall llmdispatcher"
        return Part("embedded model", (), (Finding(f"{error}", way),))
    facts = (("file", f"{path}, {header.file_size / 1e6:.1f} MB, {header.quantisation}"),)
    return Part("embedded model", facts)


def answer() -> Part:
    """Have the embedded model answer, as a program would."""
    from llmdispatcher import Dispatcher  # noqa: PLC0415 - the package is whole by now

    name = "a real answer"
    try:
        with Dispatcher(embedded()) as dispatcher:
            began_s = time.monotonic()
            reply = dispatcher.send(_ASKED, max_tokens=32, temperature=0.0)
            took_s = time.monotonic() - began_s
    except DispatcherError as error:
        return Part(name, (), (Finding(f"the embedded model does not answer: {error}", _EXTRA),))
    facts = [("asked", _ASKED), ("answered", reply.text.strip()), ("took", f"{took_s:.2f} s")]
    return Part(name, tuple(facts))
