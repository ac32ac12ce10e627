"""Fixtures that ask the real llama.cpp, in a child process, whose log belongs to the test alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RealLlama = Callable[..., list[dict[str, Any]]]

_CHILD = Path(__file__).parent / "real_llama.py"


@pytest.fixture
def real_llama() -> RealLlama:
    """Load files in llama.cpp: each job is a dict as in real_llama.py, and gets a dict back."""

    def ask(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
        asked = json.dumps(jobs, default=str)
        done = subprocess.run(
            [sys.executable, str(_CHILD)], input=asked, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return ask
