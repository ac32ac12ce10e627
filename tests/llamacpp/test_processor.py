"""What a processor can do, against what a build was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdispatcher.vendors.llamacpp import processor
from llmdispatcher.vendors.llamacpp.processor import Match, features, match

OLD = "pni ssse3 sse4_2 avx"
HASWELL = f"{OLD} avx2 f16c fma bmi2"
ZEN4 = f"{HASWELL} avx512f avx512cd avx512vl avx512dq avx512bw avx512vbmi avx512_vnni avx512_bf16"
ARM = "fp asimd asimdhp asimddp i8mm sve"

AVX2_BUILD = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | "
NATIVE_BUILD = f"{AVX2_BUILD}AVX512 = 1 | AVX512_VNNI = 1 | OPENMP = 1 | REPACK = 1 | "
OLD_BUILD = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | LLAMAFILE = 1 | "
ARM_BUILD = "CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1 | SVE_CNT = 16 | "


@pytest.mark.parametrize(
    ("build", "flags", "expected"),
    [
        (AVX2_BUILD, HASWELL, Match()),
        (NATIVE_BUILD, ZEN4, Match()),
        (AVX2_BUILD, ZEN4, Match(unused=("AVX512",))),
        (OLD_BUILD, HASWELL, Match(unused=("AVX2", "FMA", "F16C"))),
        (NATIVE_BUILD, HASWELL, Match(lacking=("AVX512", "AVX512_VNNI"))),
        (AVX2_BUILD, OLD, Match(lacking=("AVX2", "F16C", "FMA", "BMI2"))),
        # a part of AVX-512 is not what a build with it uses
        (NATIVE_BUILD, f"{HASWELL} avx512f avx512_vnni", Match(lacking=("AVX512",))),
        (ARM_BUILD, ARM, Match(unused=("SVE", "MATMUL_INT8"))),
        (ARM_BUILD, "asimd asimddp", Match()),
        (AVX2_BUILD, "", Match()),
        ("", ZEN4, Match()),
    ],
)
def test_builds_and_processors_are_compared(build: str, flags: str, expected: Match) -> None:
    """More than the processor has crashes, less is slow, and nothing is said of the unknown."""
    assert match(features(build).get("CPU", {}), frozenset(flags.split())) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("nonsense", {}),
        ("CPU : ", {"CPU": {}}),
        ("CPU : AVX = 1 | X = 0", {"CPU": {"AVX": "1", "X": "0"}}),
        (
            "CUDA : ARCHS = 500,890 | USE_GRAPHS = 1 | CPU : AVX = 1 | ",
            {"CUDA": {"ARCHS": "500,890", "USE_GRAPHS": "1"}, "CPU": {"AVX": "1"}},
        ),
    ],
)
def test_the_features_of_each_backend_are_read(
    text: str, expected: dict[str, dict[str, str]]
) -> None:
    """As llama.cpp prints them; anything else is left out."""
    assert features(text) == expected


def test_the_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    """x86 and arm64 call the line differently, and a machine without it has none."""
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A: B\nvmx flags\t: no\nflags\t\t: fpu avx\n\n")
    assert processor.flags(info) == {"fpu", "avx"}
    assert processor.name(info) == "A: B"
    info.write_text("processor : 0\nFeatures : fp asimd\n")
    assert processor.flags(info) == {"fp", "asimd"}
    assert processor.name(info) == ""
    assert processor.flags(tmp_path / "none") == frozenset()
    assert processor.name(tmp_path / "none") == ""
