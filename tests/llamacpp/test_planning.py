"""Plans for this machine: what is read from it, and how much a model takes that is planned so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import tiny_gguf
from model_shapes import SHAPES, recurrent, sliding

from llmdispatcher.models.errors import ExecutableNotFound, ModelFileMissing, ModelTooLarge
from llmdispatcher.vendors.llamacpp.engine.lookup import MAX_DRAFT
from llmdispatcher.vendors.llamacpp.files.gguf import read_header
from llmdispatcher.vendors.llamacpp.limits import probe
from llmdispatcher.vendors.llamacpp.plan import planning
from llmdispatcher.vendors.llamacpp.plan.fit import Asked, Plan, choose

MIB = 2**20
SLACK_BYTES = MIB
"""What a process may grow by otherwise, of which ten percent of a tiny model is less."""


@attrs.frozen(kw_only=True)
class Wishes:
    """What a vendor holds of a user's wishes."""

    context_tokens: int | None = None
    max_parallel: int | None = None
    max_memory_mb: int | None = None
    max_vram_mb: int | None = None
    isolation: str = "thread"
    max_threads: int | None = None
    max_gpu_layers: int | None = None
    cache_type: str = "f16"
    speculate: bool | None = False
    projector_path: Path | None = None
    adapters: Mapping[str, Path] = attrs.field(factory=dict)


HEADS_64 = {"width": 256, "heads": 4, "heads_kv": 2, "feed_forward": 704}
WIDE = {**HEADS_64, "vocab": 128_256, "layers": 4, "storage": "F16"}
DEEP = {"vocab": 1000, "width": 128, "layers": 80, "feed_forward": 256, "storage": "F16"}
SLIDING = {**sliding(width=512, window=256), "feed_forward": 1408, "vocab": 8000, "storage": "F16"}
MAMBA = {**recurrent(width=512, layers=12), "vocab": 8000}
QUANTISED = {**HEADS_64, "vocab": 16_000, "layers": 24, "storage": "Q4_0"}


def grown_bytes(path: Path, plan: Plan) -> int:
    """Load and use a model in a process of its own, and return by how much that grew."""
    asked = {**attrs.asdict(plan), "path": str(path)}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measure_llama.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured through /proc")
@pytest.mark.parametrize(
    ("shape", "wishes"),
    [
        pytest.param({}, {}, id="tiny"),
        pytest.param(SHAPES["15m"], {"max_parallel": 1}, id="15m"),
        pytest.param(
            SHAPES["135m"],
            {"context_tokens": 512, "max_parallel": 2},
            id="135m",
            marks=pytest.mark.soak,
        ),
        pytest.param(WIDE, {"cache_type": "q8_0"}, id="wide vocabulary", marks=pytest.mark.soak),
        pytest.param(DEEP, {"max_parallel": 1}, id="many layers", marks=pytest.mark.soak),
        pytest.param(
            WIDE | {"vocab": 8000}, {"cache_type": "f32"}, id="exact", marks=pytest.mark.soak
        ),
        pytest.param(SLIDING, {}, id="sliding window", marks=pytest.mark.soak),
        pytest.param(MAMBA, {}, id="recurrent", marks=pytest.mark.soak),
        pytest.param(QUANTISED, {}, id="repacked"),
    ],
)
def test_a_process_grows_by_what_was_planned(
    shape: dict[str, Any],
    wishes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a tenth: weights and all that is allocated, while whole batches are decoded."""
    monkeypatch.setitem(tiny_gguf._FILE_TYPES, "Q4_0", "MOSTLY_Q4_0")
    path = tiny_gguf.tiny_model(tmp_path / "m.gguf", **shape)
    asked = Asked(**{"context_tokens": 1024, "max_parallel": 4, **wishes})
    plan = choose(read_header(path), asked, planning.machine())
    grown, planned = grown_bytes(path, plan), plan.need.total_bytes
    assert 0.9 * grown - SLACK_BYTES <= planned <= 1.1 * grown + SLACK_BYTES


def test_wishes_reach_the_plan(tmp_path: Path) -> None:
    """Every wish of a vendor counts."""
    header = read_header(tiny_gguf.tiny_model(tmp_path / "m.gguf", vocab=60_000, width=64))
    wishes = Wishes(
        context_tokens=300,
        max_parallel=2,
        max_memory_mb=100,
        max_threads=1,
        max_gpu_layers=0,
        cache_type="f32",
    )
    plan = planning.make_plan(wishes, header)
    assert (plan.context_tokens, plan.parallel, plan.cells) == (300, 2, 768)
    assert (plan.limit_bytes, plan.cache_type, plan.threads) == (100 * MIB, "f32", 1)
    with pytest.raises(ModelTooLarge, match="limit is 10 MiB"):
        planning.make_plan(attrs.evolve(wishes, max_memory_mb=10), header)


def test_files_beside_the_model_take_memory(tmp_path: Path) -> None:
    """Weights of adapters and projectors count, and so do the scores of guesses."""
    header = read_header(tiny_gguf.tiny_model(tmp_path / "m.gguf"))
    other = tiny_gguf.tiny_model(tmp_path / "other.gguf", width=64)
    size = read_header(other).weight_bytes
    plain = planning.make_plan(Wishes(), header).need

    both = planning.make_plan(Wishes(projector_path=other, adapters={"a": other}), header).need
    guessing = planning.make_plan(Wishes(speculate=True), header).need

    assert both == attrs.evolve(plain, beside=2 * size)
    assert planning.make_plan(Wishes(speculate=None), header).need == plain, "it is too small"
    assert guessing.output - plain.output == MAX_DRAFT * header.vocab_size * 4
    with pytest.raises(ModelFileMissing, match="nowhere"):
        planning.make_plan(Wishes(adapters={"a": tmp_path / "nowhere.gguf"}), header)


def test_the_machine_is_read_with_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is left to other programs, and every processor is counted once."""
    memory = probe.memory()
    # the next moment it may be another by any amount: others take memory and give it back
    monkeypatch.setattr(probe, "memory", lambda: memory)
    machine = planning.machine()
    reserve = min(planning.HEADROOM_BYTES, memory.total_bytes // 20)
    assert machine.available_bytes == max(0, memory.available_bytes - reserve)
    assert machine.processors == probe.threads()


def test_planning_loads_no_engine(tmp_path: Path) -> None:
    """A plan for a machine without a GPU is made without importing llama_cpp."""
    path = tiny_gguf.tiny_model(tmp_path / "m.gguf")
    code = (
        "import sys; from llmdispatcher import LlamaCpp;"
        f"LlamaCpp({str(path)!r}, max_gpu_layers=0).plan();"
        "print('llama_cpp' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


@pytest.mark.parametrize(
    ("names", "has_gpu"),
    [
        ((), False),
        (("libggml.so", "libggml-base.so", "libggml-cpu.so", "libllama.so"), False),
        (("libggml-base.so", "libggml-blas.dylib", "ggml-rpc.dll", "libggml-cuda.txt"), False),
        (("libggml-base.so", "libggml-cuda.so"), True),
        (("libggml-metal.dylib",), True),
        (("ggml-vulkan.dll",), True),
    ],
)
def test_a_look_at_the_libraries_says_whether_there_can_be_a_gpu(
    names: tuple[str, ...],
    has_gpu: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    """A build for processors alone is not asked for GPUs, which would load it."""
    for name in names:
        (tmp_path / name).touch()
    assert planning._has_gpu_backend(tmp_path) == has_gpu


def test_ggml_tells_its_devices() -> None:
    """The functions that would tell of GPUs tell of the processor here."""
    folder = planning._library_folder()
    assert folder is not None
    kinds = {kind: (name, free) for kind, name, free in planning._devices(folder)}
    assert kinds[0][0] == "CPU"
    assert kinds[0][1] > 0


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ([(0, "CPU", 9)], ((), False)),
        ([(1, "CUDA0", 5), (1, "CUDA1", 6), (2, "Vulkan0", 7), (0, "CPU", 9)], ((5, 6), False)),
        ([(2, "Vulkan0", 7), (0, "CPU", 9)], ((7,), True)),
        ([(1, "MTL0", 8), (3, "BLAS", 9), (0, "CPU", 9)], ((8,), True)),
    ],
)
def test_gpus_are_those_that_llama_cpp_takes(
    devices: list[tuple[int, str, int]],
    found: tuple[tuple[int, ...], bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Integrated ones count where there is no other, and share main memory, as Apple's do."""
    (tmp_path / "libggml-cuda.so").touch()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    monkeypatch.setattr(planning, "_devices", lambda _: devices)
    assert planning._gpus() == found
    assert planning.machine().gpus == found[0]
    assert planning.machine(gpus=False).gpus == ()


def test_without_the_binding_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan can be made where llama-cpp-python is not installed."""
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    monkeypatch.setattr(planning, "find_spec", lambda _: None)
    assert planning._gpus() == ((), False)


def test_without_psutil_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the machine is named."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.delitem(sys.modules, "llmdispatcher.vendors.llamacpp.limits.probe")
    monkeypatch.delattr("llmdispatcher.vendors.llamacpp.limits.probe")
    with pytest.raises(ExecutableNotFound, match="there is no psutil"):
        planning.machine()


def test_memory_on_gpus_is_given_out_up_to_its_limit() -> None:
    """The first devices get it, and the last what is left."""
    assert planning._within((5 * MIB, 9 * MIB), 8 * MIB) == (5 * MIB, 3 * MIB)
    assert planning._within((5 * MIB, 9 * MIB), 2 * MIB) == (2 * MIB, 0)
