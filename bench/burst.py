"""Several requests at once, as their callers saw the replies arrive, and what follows from that.

Imported by contenders that must not import anything else: standard library only.
"""

from __future__ import annotations

import bisect
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

LETTERS = "abcdefghijklmnopqrstuvwxyz      "
"""What prompts are made of. The models of ``shapes.py`` read each character as one token."""

STEADY_SHARE = 0.4
"""Of all tokens, the least that must come while every reply is on its way; where less do, the
replies were not generated together, and there is no such phase to measure."""


def prompts(seed: int, count: int, tokens: int) -> list[str]:
    """Make prompts that have nothing in common, the same ones for the same seed."""
    source = random.Random(seed)  # noqa: S311 - not a secret
    return ["".join(source.choices(LETTERS, k=tokens)) for _ in range(count)]


@dataclass
class Track:
    """One reply: when which text came (seconds of ``time.perf_counter``)."""

    times: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    ended_s: float = 0.0

    def take(self, text: str) -> None:
        """Note a piece."""
        if text:
            self.times.append(time.perf_counter())
            self.texts.append(text)

    def end(self, tokens: int) -> None:
        """Note the end and how many tokens there were."""
        self.ended_s = time.perf_counter()
        self.tokens = tokens

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(self.texts)

    def characters(self, until_s: float) -> int:
        """Return how much text had come by then."""
        pairs = zip(self.times, self.texts, strict=True)
        return sum(len(text) for at_s, text in pairs if at_s <= until_s)

    def between(self, since_s: float, until_s: float) -> tuple[float, float]:
        """Return the tokens that followed the first arrival of a stretch, and how long that took.

        Callers see text, which may come in pieces of several tokens: they are counted by their
        share of the characters.
        """
        inside = [at_s for at_s in self.times if since_s <= at_s <= until_s]
        if len(inside) < 2:  # noqa: PLR2004 - one arrival has no duration
            return 0.0, 0.0
        come = self.characters(inside[-1]) - self.characters(inside[0])
        return self.tokens * come / len(self.text), inside[-1] - inside[0]


@dataclass
class Burst:
    """Replies to requests that were made at the same moment."""

    tracks: list[Track]
    began_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the contender meanwhile, and of its clients where those are elsewhere."""

    @classmethod
    def of(cls, count: int) -> Self:
        """Begin."""
        return cls([Track() for _ in range(count)], time.perf_counter(), time.process_time())

    def end(self) -> dict[str, Any]:
        """End, and return what can be sent as JSON."""
        self.cpu_s = time.process_time() - self.cpu_s
        return asdict(self)

    @classmethod
    def parse(cls, sent: dict[str, Any]) -> Self:
        """Read what ``end`` returned in another process. Raises ValueError for an empty reply."""
        tracks = [Track(**track) for track in sent["tracks"]]
        if not all(track.times for track in tracks):
            raise ValueError("a reply came without any text")
        return cls(tracks, sent["began_s"], sent["cpu_s"])

    @property
    def tokens(self) -> int:
        """Of all replies."""
        return sum(track.tokens for track in self.tracks)

    @property
    def whole_s(self) -> float:
        """From the requests to the end of the last reply."""
        return max(track.ended_s for track in self.tracks) - self.began_s

    @property
    def first_s(self) -> list[float]:
        """How long each caller waited for text."""
        return [track.times[0] - self.began_s for track in self.tracks]

    @property
    def texts(self) -> list[str]:
        """All replies."""
        return [track.text for track in self.tracks]

    def generation_per_s(self) -> float | None:
        """Return tokens per second while all replies are on their way; see STEADY_SHARE."""
        begun_s = max(track.times[0] for track in self.tracks)
        ended_s = min(track.times[-1] for track in self.tracks)
        spans = [track.between(begun_s, ended_s) for track in self.tracks]
        made = sum(tokens for tokens, _ in spans)
        if made < STEADY_SHARE * (self.tokens - len(self.tracks)):
            return None
        return sum(tokens / took_s for tokens, took_s in spans if took_s)

    def evenness(self) -> float:
        """Return the least progress of a reply over the most, when half of all text had come."""
        arrivals = sorted(
            (at_s, len(text))
            for track in self.tracks
            for at_s, text in zip(track.times, track.texts, strict=True)
        )
        come = list(itertools.accumulate(size for _, size in arrivals))
        half_s = arrivals[bisect.bisect_left(come, come[-1] / 2)][0]
        progress = [track.characters(half_s) / len(track.text) for track in self.tracks]
        return min(progress) / max(progress)


@dataclass(frozen=True)
class Turn:
    """The figures of one burst."""

    tokens: int
    whole_s: float
    generation_per_s: float | None
    cpu_s: float | None = None
    first_s: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    others: float | None = None
    """Processors that others kept busy meanwhile."""

    @classmethod
    def of(cls, burst: Burst) -> Self:
        """Take the figures of a burst."""
        return cls(
            tokens=burst.tokens,
            whole_s=burst.whole_s,
            generation_per_s=burst.generation_per_s(),
            cpu_s=burst.cpu_s,
            first_s=tuple(burst.first_s),
            texts=tuple(burst.texts),
        )

    @property
    def whole_per_s(self) -> float:
        """New tokens per second, from the requests to the last end."""
        return self.tokens / self.whole_s

    @property
    def us_per_token(self) -> float:
        """Of the whole."""
        return 1e6 * self.whole_s / self.tokens

    @property
    def cores(self) -> float | None:
        """Processors that were kept busy, on average."""
        return None if self.cpu_s is None else self.cpu_s / self.whole_s

    @property
    def cpu_us_per_token(self) -> float | None:
        """Of the whole."""
        return None if self.cpu_s is None else 1e6 * self.cpu_s / self.tokens


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def gaps_s(times: Sequence[float], since_s: float, until_s: float) -> list[float]:
    """Return the pauses between arrivals that lie in a stretch of time, in part at least."""
    pairs = itertools.pairwise(times)
    return [after - before for before, after in pairs if after > since_s and before < until_s]
