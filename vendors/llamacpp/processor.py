"""What this machine's processor can do, against what a build of llama.cpp was made for.

A build for more than the processor has ends the process with an illegal instruction; one for less
is slower than it could be. Pure, but for reading the processor's flags; where the system does not
tell them in a file, which is so on macOS and Windows, they are not known.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

_CPUINFO = Path("/proc/cpuinfo")

_FLAG_LINES = ("flags", "Features")
"""What the line is called on x86, and on arm64."""

_NEEDS: dict[str, tuple[str, ...]] = {
    "SSE3": ("pni",),
    "SSSE3": ("ssse3",),
    "AVX": ("avx",),
    "AVX_VNNI": ("avx_vnni",),
    "AVX2": ("avx2",),
    "F16C": ("f16c",),
    "FMA": ("fma",),
    "BMI2": ("bmi2",),
    "AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "AVX512_VBMI": ("avx512vbmi",),
    "AVX512_VNNI": ("avx512_vnni",),
    "AVX512_BF16": ("avx512_bf16",),
    "AMX_INT8": ("amx_int8", "amx_tile"),
    "NEON": ("asimd",),
    "FP16_VA": ("asimdhp",),
    "DOTPROD": ("asimddp",),
    "MATMUL_INT8": ("i8mm",),
    "SVE": ("sve",),
    "SME": ("sme",),
}
"""Features as ggml names them (ggml_backend_cpu_get_features in ggml-cpu.cpp), and the flags of
/proc/cpuinfo that its build options (ggml-cpu/CMakeLists.txt) take for granted."""

TILES = frozenset(_NEEDS["AMX_INT8"])
"""The flags of a processor that multiplies whole tiles of a matrix at once."""

_MATTERS = ("AVX512", "AVX2", "FMA", "F16C", "SVE", "MATMUL_INT8", "DOTPROD", "AMX_INT8")
"""Without these a build is plainly slower. Measured for AVX512 alone: a build without it read
prompts at 204 tokens/s instead of 560 and wrote 71 instead of 89 (F16, one thread)."""

_BACKEND = re.compile(r"(?:^|\| )(\w+) : ")
_FEATURE = re.compile(r"(\w+) = ([^|]*?)\s*(?:\||$)")


@attrs.frozen
class Match:
    """A build and a processor, compared."""

    lacking: tuple[str, ...] = ()
    """Features that the build uses and the processor does not have: it crashes, or will."""
    unused: tuple[str, ...] = ()
    """Features that the processor has, that matter, and that the build leaves out: it is slow."""


def flags(path: Path = _CPUINFO) -> frozenset[str]:
    """Return the processor's flags, as Linux names them; empty where they are not known."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, colon, values = line.partition(":")
        if colon and name.strip() in _FLAG_LINES:
            return frozenset(values.split())
    return frozenset()


def name(path: Path = _CPUINFO) -> str:
    """Return what the processor is called; empty where that is not known."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == "model name":
            return value.strip()
    return ""


def features(system_info: str) -> dict[str, dict[str, str]]:
    """Read what ``llama_print_system_info`` returns: backends, and the features of each.

    ``CPU : SSE3 = 1 | AVX = 1 | CUDA : ARCHS = 890 | ``; what is not of that form is left out.
    """
    places = [*_BACKEND.finditer(system_info)]
    ends = [*(place.start() for place in places[1:]), len(system_info)]
    return {
        place[1]: dict(_FEATURE.findall(system_info[place.end() : end]))
        for place, end in zip(places, ends, strict=False)  # one end too many without a place
    }


def match(build: Mapping[str, str], has: frozenset[str]) -> Match:
    """Compare the features of a build's CPU backend with the flags of a processor.

    Where one of both is not known, nothing is said.
    """
    if not has or not build:
        return Match()
    used = {feature for feature, value in build.items() if value not in ("0", "")}
    able = {feature for feature, needed in _NEEDS.items() if has.issuperset(needed)}
    return Match(
        lacking=tuple(feature for feature in _NEEDS if feature in used and feature not in able),
        unused=tuple(feature for feature in _MATTERS if feature in able and feature not in used),
    )
