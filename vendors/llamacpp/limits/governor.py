"""How many threads to decode with, moved while running: no more than the processors that are free.

llama.cpp's threads spin at the barrier of every operation. With one thread more than there are
free processors, each barrier waits for a thread that is not running, and throughput falls tens of
times below that of one thread. So a look is taken now and then at how busy others keep the
processors, and at once when a step took much longer than its like. Pure: times go in, a number
of threads comes out.

The engine's own share is taken to be its thread's processor time for each of its threads, which
all spin as long as it works. Whatever else is busy counts as others, other engines of the same
process included: so engines share the machine without knowing of each other.
"""

from __future__ import annotations

import attrs

LOOK_S = 0.25
"""How often to look. A look reads the processors' times, about 60 µs on Linux."""

SLOW = 3.0
"""A step that takes this many times as long as its like is a reason to look at once."""

SOONEST_S = 0.05
"""But not sooner after the last look: processors' times are counted in ticks of 10 ms."""

SPARE = 0.2
"""A processor counts as free while others take less of it than this: some noise is always there.
With more, an engine on 8 processors beside 7 busy neighbours would settle at two threads."""

FORGET = 0.05
"""Weight of the newest step in the running mean of its like."""


@attrs.frozen(kw_only=True)
class Times:
    """Seconds that have passed, and been worked, since some moment in the past."""

    now_s: float
    busy_s: float
    """Work of all processors together, whoever it was for."""
    own_s: float
    """Work of the engine's own thread, which is one of those that decode."""


class Governor:
    """Chooses the number of threads for one engine; called between its steps."""

    def __init__(self, *, ceiling: int, processors: int, times: Times) -> None:
        """Use at most ``ceiling`` threads on so many processors; ``times`` are those of now."""
        self.threads = max(1, min(ceiling, processors))
        self._ceiling = self.threads
        self._processors = processors
        self._last = times
        self._mean_s: dict[int, float] = {}

    def is_due(self, now_s: float, tokens: int, step_s: float) -> bool:
        """Whether to look now, after a step that decoded so many tokens in so many seconds."""
        if self._ceiling == 1:
            return False
        like = tokens.bit_length()  # steps of 1, 2 to 3, 4 to 7 … tokens compare
        mean_s = self._mean_s.get(like)
        if mean_s is None:
            self._mean_s[like] = mean_s = step_s
        else:
            self._mean_s[like] = mean_s + FORGET * (step_s - mean_s)
        since_s = now_s - self._last.now_s
        stalled = self.threads > 1 and step_s > SLOW * mean_s and since_s >= SOONEST_S
        return stalled or since_s >= LOOK_S

    def resume(self, times: Times) -> None:
        """Begin anew after the engine was idle: what others did meanwhile says nothing of now."""
        self._last = times

    def look(self, times: Times) -> int:
        """Take the times of now and return how many threads to decode with from here on."""
        last, self._last = self._last, times
        passed_s = times.now_s - last.now_s
        if passed_s <= 0:
            return self.threads
        own = self.threads * (times.own_s - last.own_s) / passed_s
        others = max(0.0, (times.busy_s - last.busy_s) / passed_s - own)
        free = max(1.0, self._processors - others + SPARE)
        threads = min(self._ceiling, int(free))
        if threads != self.threads:
            self.threads = threads
            self._mean_s.clear()  # steps with other threads are not alike
        return threads
