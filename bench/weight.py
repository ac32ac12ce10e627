"""Claim: llmdispatcher is light to install and light to import, next to what it replaces.

    python bench/weight.py [--envs DIR] [--find-links DIR] [--rounds 15]

Installs this checkout and each rival in a fresh virtual environment of its own (kept in ``--envs``,
so that a second run installs only the checkout), with the latest versions that pip finds, and
measures: distributions, MB of files in site-packages (without byte code), the size of the wheel,
and the import in new processes that take turns: milliseconds inside the import, whole process,
modules, resident memory. ``pass`` and ``import attrs`` are measured in the same turns, in the
environment of the core. Needs the network or wheels in ``--find-links``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness import interleave, machine, median_ratio, save, show_table, spread

CHECKOUT = Path(__file__).parent.parent
MB = 1_000_000

GOALS = {"import_ms": 60, "distributions": 22, "installed_mb": 30, "wheel_mb": 8}
"""For the core: what it must not weigh more than."""

OURS = "llmdispatcher"
EXTRA = "llmdispatcher[llamacpp]"
RIVALS = ("litellm", "any-llm-sdk", "openai", "llm", "httpx2")

SOURCES = ("dispatcher", "vendors", "models", "pyproject.toml", "README.md", "LICENSE")
"""What the wheel is built from."""

NOT_COUNTED = {"pip", "setuptools", "wheel"}

PROBE = """
import sys, time
before = time.perf_counter()
{statement}
took_s = time.perf_counter() - before
modules = len(sys.modules)
import json, resource
try:
    with open("/proc/self/status") as file:
        rss_kb = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
except OSError:
    rss_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([took_s, modules, rss_kb]))
"""


@dataclass(frozen=True)
class Subject:
    """A statement to run in an environment."""

    label: str
    environment: str
    statement: str


SUBJECTS = (
    Subject("python -c pass", OURS, "pass"),
    Subject("import attrs", OURS, "import attrs"),
    Subject("llmdispatcher", OURS, "import llmdispatcher"),
    Subject(EXTRA, EXTRA, "from llmdispatcher import Dispatcher, LlamaCpp"),
    Subject("llama_cpp (what the extra brings)", EXTRA, "import llama_cpp"),
    Subject("httpx2", "httpx2", "import httpx2"),
    Subject("openai", "openai", "import openai"),
    Subject("llm", "llm", "import llm"),
    Subject("any-llm-sdk", "any-llm-sdk", "import any_llm"),
    Subject("litellm", "litellm", "import litellm"),
)


@dataclass(frozen=True)
class Probe:
    """One import in a new process."""

    import_ms: float
    process_ms: float
    modules: int
    rss_mb: float


@dataclass(frozen=True)
class Install:
    """What an environment holds."""

    version: str
    distributions: int
    installed_mb: float
    wheel_mb: float


class Environment:
    """A virtual environment without pip, into which the pip of this interpreter installs."""

    def __init__(self, folder: Path, find_links: str | None) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._find_links = [] if find_links is None else [f"--find-links={find_links}"]

    def install(self, requirement: str, *, fresh: bool) -> None:
        """Install a requirement, unless it was installed by an earlier run."""
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        done = self.folder / "installed"
        if done.exists():
            return
        print(f"installing {requirement} in {self.folder}", file=sys.stderr)
        venv.create(self.folder, clear=True)
        pip("--python", str(self.python), "install", *self._find_links, requirement)
        done.touch()

    def size(self) -> tuple[int, float]:
        """Return the number of distributions, and MB of files that are not byte code."""
        program = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = Path(_output([str(self.python), "-I", "-c", program]).strip())
        names = [info.name.split("-")[0] for info in packages.glob("*.dist-info")]
        files = (
            path
            for path in packages.rglob("*")
            if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts
        )
        size = sum(
            path.stat().st_size
            for path in files
            if path.relative_to(packages).parts[0].split("-")[0] not in NOT_COUNTED
        )
        return len([name for name in names if name not in NOT_COUNTED]), size / MB

    def version(self, distribution: str) -> str:
        """Return the version that was installed."""
        program = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        return _output([str(self.python), "-I", "-c", program]).strip()

    def probe(self, statement: str, _round: int = 0) -> Probe:
        """Run a statement in a new process."""
        # litellm fetches its price list while it is imported, unless it is told not to.
        variables = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        command = [str(self.python), "-I", "-c", PROBE.format(statement=statement)]
        started = time.perf_counter()
        output = _output(command, variables)
        process_s = time.perf_counter() - started
        took_s, modules, rss_kb = json.loads(output.splitlines()[-1])
        return Probe(took_s * 1e3, process_s * 1e3, modules, rss_kb * 1024 / MB)


def pip(*arguments: str) -> None:
    """Run pip; its own settings and environment variables apply."""
    subprocess.run([sys.executable, "-m", "pip", "-qq", *arguments], check=True)


def build_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout, so that nothing is left behind in it."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / "checkout"
    copy.mkdir(parents=True)
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "training")
            shutil.copytree(source, copy / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, copy / name)
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(copy))
    return next(folder.glob("*.whl"))


def rival_wheel_mb(name: str, version: str, folder: Path) -> float:
    """Return the size of the wheel that pip downloads for a rival."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        pip("download", "--no-deps", "--dest", str(folder), f"{name}=={version}")
    return next(folder.glob(pattern)).stat().st_size / MB


def prepare(envs: Path, find_links: str | None) -> dict[str, tuple[Environment, Install]]:
    """Make all environments, and measure what they hold."""
    wheel = build_wheel(envs / "wheel")
    prepared = {}
    for name, requirement in {OURS: str(wheel), EXTRA: f"{wheel}[llamacpp]"}.items():
        environment = Environment(envs / name.replace("[", "-").strip("]"), find_links)
        environment.install(requirement, fresh=True)
        install = Install(environment.version(OURS), *environment.size(), wheel.stat().st_size / MB)
        prepared[name] = environment, install
    for name in RIVALS:
        environment = Environment(envs / name, find_links)
        environment.install(name, fresh=False)
        version = environment.version(name)
        wheel_mb = rival_wheel_mb(name, version, envs / "rivals")
        prepared[name] = environment, Install(version, *environment.size(), wheel_mb)
    return prepared


def measure(environments: Mapping[str, Environment], rounds: int) -> dict[str, list[Probe]]:
    """Import everything in turns, after one import each that warms byte code and disk caches."""
    contenders = {
        subject.label: partial(environments[subject.environment].probe, subject.statement)
        for subject in SUBJECTS
    }
    interleave(1, contenders)
    return interleave(rounds, contenders)


def summarize(probes: Mapping[str, Sequence[Probe]]) -> dict[str, dict[str, Any]]:
    """Return medians, and ratios to ``import attrs``, ``pass`` and llmdispatcher by round."""
    process = {label: [probe.process_ms for probe in runs] for label, runs in probes.items()}
    inside = {label: [probe.import_ms for probe in runs] for label, runs in probes.items()}
    return {
        label: {
            "import_ms": spread(inside[label]),
            "process_ms": spread(process[label]),
            "modules": statistics.median(probe.modules for probe in runs),
            "rss_mb": statistics.median(probe.rss_mb for probe in runs),
            "import_over_attrs": median_ratio(inside[label], inside["import attrs"]),
            "process_over_pass": median_ratio(process[label], process["python -c pass"]),
            "import_over_ours": median_ratio(inside[label], inside["llmdispatcher"]),
        }
        for label, runs in probes.items()
    }


def show(installs: Mapping[str, Install], imports: Mapping[str, Mapping[str, Any]]) -> None:
    """Print both tables."""
    show_table(
        "Install",
        ("environment", "version", "distributions", "site-packages MB", "wheel MB"),
        [
            (
                name,
                it.version,
                str(it.distributions),
                f"{it.installed_mb:.1f}",
                f"{it.wheel_mb:.2f}",
            )
            for name, it in installs.items()
        ],
    )
    show_table(
        "Import, warm (medians; ratios are medians of the ratios of each round)",
        ("import", "ms", "x ours", "x attrs", "process ms", "x pass", "modules", "RSS MB"),
        [
            (
                label,
                f"{it['import_ms']['median']:.1f}",
                f"{it['import_over_ours']:.2f}",
                f"{it['import_over_attrs']:.2f}",
                f"{it['process_ms']['median']:.0f}",
                f"{it['process_over_pass']:.2f}",
                f"{it['modules']:.0f}",
                f"{it['rss_mb']:.1f}",
            )
            for label, it in imports.items()
        ],
    )


def verdicts(install: Install, imported: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Hold the core against its goals."""
    found = {
        "import_ms": imported["import_ms"]["median"],
        "distributions": install.distributions,
        "installed_mb": install.installed_mb,
        "wheel_mb": install.wheel_mb,
    }
    return {
        name: {"goal": goal, "found": round(found[name], 2), "met": found[name] <= goal}
        for name, goal in GOALS.items()
    }


def _output(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=variables)
    return done.stdout


def main() -> None:
    """Install, measure, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=Path, help="keep the environments in this folder")
    parser.add_argument("--find-links", help="a folder of wheels, handed to pip")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        envs = (options.envs or Path(temporary)).resolve()
        prepared = prepare(envs, options.find_links)
        facts = machine()
        environments = {name: environment for name, (environment, _) in prepared.items()}
        imports = summarize(measure(environments, options.rounds))
    installs = {name: install for name, (_, install) in prepared.items()}
    goals = verdicts(installs[OURS], imports["llmdispatcher"])
    show(installs, imports)
    show_table(
        "Goals of the core",
        ("what", "at most", "found", "met"),
        [
            (name, str(it["goal"]), str(it["found"]), "yes" if it["met"] else "NO")
            for name, it in goals.items()
        ],
    )
    save(
        "weight",
        {
            "machine": facts,
            "rounds": options.rounds,
            "installs": {name: asdict(install) for name, install in installs.items()},
            "imports": imports,
            "goals": goals,
        },
    )


if __name__ == "__main__":
    main()
