"""Who is next, whether it still works, and what its log says: pure, so time is an argument."""

from __future__ import annotations

import pytest

from llmdispatcher.models.errors import (
    CorruptModel,
    ExecutableNotFound,
    OutOfMemory,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.server import report
from llmdispatcher.vendors.llamacpp.server.desk import AGE_S, MAX_WAITING, Desk, Seat
from llmdispatcher.vendors.llamacpp.server.report import MIB, Log
from llmdispatcher.vendors.llamacpp.server.signs import Sight, Signs


def test_no_more_are_let_in_than_fit() -> None:
    """Places and tokens are both bounded, and what leaves makes room."""
    desk = Desk(slots=3, cells=100)
    seats = [Seat(tokens=40) for _ in range(4)]
    assert [desk.add(seat) for seat in seats] == [0, 1, 2, 3]
    assert desk.next(0) is seats[0]
    assert desk.next(0) is seats[1]
    assert desk.next(0) is None
    desk.shrink(seats[0], 10)
    assert desk.next(0) is seats[2]
    assert desk.next(0) is None
    desk.leave(seats[1])
    assert desk.next(0) is seats[3]
    assert len(desk) == 0


def test_one_that_never_fits_goes_alone() -> None:
    """What is larger than all there is gets all there is, when it is its turn."""
    desk = Desk(slots=1, cells=100)
    large, small = Seat(tokens=1000, slots=3), Seat(tokens=1)
    desk.add(large)
    desk.add(small)
    assert desk.next(0) is large
    assert desk.next(0) is None
    desk.leave(large)
    assert desk.next(0) is small


def test_a_large_one_is_not_passed() -> None:
    """One that is due and does not fit yet is waited for."""
    desk = Desk(slots=9, cells=100)
    first, large, small = Seat(tokens=60), Seat(tokens=60), Seat(tokens=10)
    for seat in (first, large, small):
        desk.add(seat)
    assert desk.next(0) is first
    assert desk.next(0) is None
    desk.leave(large)  # it gave up
    assert desk.next(0) is small


def test_the_higher_priority_goes_first_but_not_for_ever() -> None:
    """Priority counts, and so does the time that somebody has waited."""
    desk = Desk(slots=1, cells=10)
    old, new = Seat(priority=0, arrived_s=0), Seat(priority=2, arrived_s=100)
    desk.add(old)
    assert desk.add(new) == 0
    assert desk.next(100) is old
    desk.leave(old)
    again = Seat(priority=0, arrived_s=100)
    desk.add(again)
    assert desk.next(100 + AGE_S) is new


def test_a_queue_is_bounded() -> None:
    """No more wait than the bound says."""
    desk = Desk(slots=1, cells=1)
    for _ in range(MAX_WAITING):
        assert desk.add(Seat()) >= 0
    assert desk.add(Seat()) == -1


def sight(*marks: int, cpu_s: float = 0.0) -> Sight:
    """See something."""
    return Sight(marks=marks, cpu_s=cpu_s)


def test_silence_is_measured() -> None:
    """Time without a sign of work adds up, and any sign ends it."""
    signs = Signs(0.0)
    signs.look(sight(1), 0.0)
    for second in range(1, 6):
        assert signs.look(sight(1), float(second)) == second
    assert signs.look(sight(2), 6.0) == 0
    assert signs.look(sight(2), 7.0) == 1
    assert signs.look(sight(2, cpu_s=1.0), 8.0) == 0
    assert signs.look(sight(2, cpu_s=1.001), 9.0) == 1


def test_a_server_that_only_answers_does_not_work() -> None:
    """The little time that answers take is no sign of work; a machine asleep is no hang."""
    signs = Signs(0.0)
    signs.look(sight(1), 0.0)
    for second in range(1, 31):
        still_s = signs.look(sight(1, cpu_s=0.005 * second), float(second))
    assert still_s == 30
    signs = Signs(0.0)
    signs.look(sight(1), 0.0)
    assert signs.look(sight(1), 3600.0) == 1


def test_questions_without_answer_are_counted() -> None:
    """An answer ends the count; so does a sign of work, and having nothing to do."""
    signs = Signs(0.0)
    signs.look(sight(1), 0.0)
    signs.asked()
    signs.look(sight(1), 1.0)
    signs.look(sight(1), 2.0)
    assert signs.unanswered_s == 2
    signs.look(sight(2), 3.0)
    assert signs.unanswered_s == 0
    signs.look(sight(2), 4.0)
    assert signs.unanswered_s == 1
    signs.answered()
    assert signs.unanswered_s == 0
    signs.asked()
    signs.look(sight(2), 5.0)
    signs.rested()
    assert signs.unanswered_s == 0
    assert signs.look(sight(2), 6.0) == 0


LOG = """\
0.00.008.541 I srv    load_model: loading model '/models/x.gguf'
0.00.009.522 I llama_model_loader: loaded meta data with 30 key-value pairs and 47 tensors
0.00.014.817 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.015.000 I load_tensors: offloaded 12/33 layers to GPU
0.00.016.575 I load_tensors:   CPU_Mapped model buffer size =   100.50 MiB
0.00.016.576 I load_tensors:        CUDA0 model buffer size =  2000.00 MiB
0.00.017.041 I llama_context: constructing llama_context
0.00.012.296 I llama_context:        CPU  output buffer size =     0.25 MiB
0.00.014.466 I llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
0.00.014.467 I llama_kv_cache:      CUDA0 KV buffer size =    64.00 MiB
0.00.017.535 I sched_reserve:        CPU compute buffer size =     3.50 MiB
0.00.019.553 I srv  llama_server: model loaded
"""


def test_buffers_are_read_from_the_log() -> None:
    """Sizes are told by device and kind, those of two caches together."""
    log = Log()
    for line in LOG.splitlines():
        log.take(line)
    buffers = log.buffers()
    assert buffers.offloaded == (12, 33)
    assert ("CUDA0", "KV", 576 * MIB) in buffers.bytes_of
    assert ("CPU", "compute", 7 * MIB // 2) in buffers.bytes_of
    assert buffers.total_bytes == (100 * 4 + 2 + 8000 + 1 + 2304 + 14) * MIB // 4
    assert log.lines == 12


def test_progress_only_grows() -> None:
    """Lines and memory both tell how far a load is, and neither tells its end."""
    log = Log()
    assert log.fraction(0.9) == 0.0
    fractions = []
    for line in LOG.splitlines():
        log.take(line)
        fractions += [log.fraction(0.0), log.fraction(0.5), log.fraction(7.0)]
        assert fractions[-3:] == sorted(fractions[-3:])
    assert fractions[-1] < 1
    assert log.fraction(0.5) == 0.95


FAILURES: list[tuple[str, type[VendorError], str]] = [
    (
        "E x: error loading model: unknown model architecture: 'zebra'",
        UnsupportedArchitecture,
        "zebra",
    ),
    (
        "0.00.022.963 E ggml_aligned_malloc: insufficient memory (attempted 9 MB)",
        OutOfMemory,
        "9 MB",
    ),
    ("llama_init: failed to allocate buffer for kv cache\nfailed to load model", OutOfMemory, "kv"),
    ("E gguf_init_from_reader: bad GGUF version: 0", CorruptModel, "version"),
    ("error: invalid argument: --bogus", ExecutableNotFound, "--bogus"),
]


@pytest.mark.parametrize(("text", "kind", "match"), FAILURES, ids=[r[1].__name__ for r in FAILURES])
def test_the_log_says_why_a_load_failed(text: str, kind: type[VendorError], match: str) -> None:
    """The line that names the cause decides, and is quoted without its time."""
    found = report.failure(f"some line\n{text}\nexiting due to model loading error", "/m.gguf")
    assert type(found) is kind
    assert match in str(found)
    assert "0.00.022" not in str(found)


def test_a_log_without_a_cause_is_no_cause() -> None:
    """Nothing is made up; a port that is taken is told apart."""
    assert report.failure("srv llama_server: initializing ...", "/m.gguf") is None
    assert report.is_port_taken("start: couldn't bind HTTP server socket, port: 18099")
    assert not report.is_port_taken("srv load_model: loading")
