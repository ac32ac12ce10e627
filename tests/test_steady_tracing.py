"""No thread of a test is lost to another one that begins."""

from __future__ import annotations

import textwrap
from pathlib import Path

from fresh import in_a_new_process

TESTS = Path(__file__).parent

MANY = f"""
import sys, threading, time
sys.path.append({str(TESTS)!r})
from steady_tracing import settle

def trace(*_):
    return None

sys.addaudithook(lambda event, _: time.sleep(0.0005) if event == "sys.settrace" else None)
sys.settrace(trace)
threading.settrace(trace)
settle()
done = []
for _ in range(20):
    threads = [threading.Thread(target=done.append, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(done))
"""
"""Threads that are traced, on a machine where to begin to be traced takes a while."""


def test_threads_that_are_traced_begin_beside_one_another() -> None:
    """All of them do their work; without help most would end before it on Python 3.11."""
    assert in_a_new_process(textwrap.dedent(MANY)).split() == ["160"]
