"""The ledger's sums in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

from llmdispatcher.models.reply import MICRO_PER_USD

if TYPE_CHECKING:
    from llmdispatcher.ledger_queries import Reader, Tally, Times

Named = tuple[dict[str, str], "Tally"]
"""Labels, and the figures that they are of."""

_FATES = ("served", "failed", "absorbed", "cancelled", "partial", "expired")
_TOKENS = ("prompt", "completion", "cached", "cache_write", "reasoning")


@attrs.frozen
class Sample:
    """One line: labels and a value; ``suffix`` is behind the family's name."""

    labels: Mapping[str, str]
    value: int | float | Decimal
    suffix: str = ""


def text(reader: Reader) -> str:
    """Return every family with its help and type. Raises LedgerUnusable."""
    tallies = reader.tallies("model")
    named = [(_labels(tally), tally) for tally in tallies]
    return "".join([*_counters(named), *_gauges(named), *_summaries(named)])


def _counters(named: Sequence[Named]) -> list[str]:
    return [
        _family(
            "attempts_total",
            "counter",
            "Attempts by how they ended; absorbed: another one served the request.",
            (
                Sample({**labels, "outcome": fate}, getattr(tally, fate))
                for labels, tally in named
                for fate in _FATES
            ),
        ),
        _family(
            "tokens_total",
            "counter",
            "Tokens; cached and cache_write are parts of prompt, reasoning is one of completion.",
            (
                Sample({**labels, "kind": kind}, getattr(tally, f"{kind}_tokens"))
                for labels, tally in named
                for kind in _TOKENS
            ),
        ),
        _family(
            "cost_usd_total",
            "counter",
            "Dollars, over the attempts whose cost is known.",
            (Sample(labels, _usd(tally.cost_microusd)) for labels, tally in named),
        ),
        _family(
            "unknown_cost_attempts_total",
            "counter",
            "Attempts whose cost is not known.",
            (Sample(labels, tally.unknown_cost) for labels, tally in named),
        ),
    ]


def _gauges(named: Sequence[Named]) -> list[str]:
    return [
        _family(
            "in_flight_attempts",
            "gauge",
            "Attempts with a reservation that have not ended.",
            (Sample(labels, tally.open) for labels, tally in named),
        ),
        _family(
            "reserved_usd",
            "gauge",
            "Dollars set aside for attempts that have not ended.",
            (Sample(labels, _usd(tally.reserved_microusd)) for labels, tally in named),
        ),
    ]


def _summaries(named: Sequence[Named]) -> list[str]:
    return [
        _summary("latency_seconds", "Time of attempts that were served.", named, "latency"),
        _summary("first_token_seconds", "Time to the first token of those.", named, "first_token"),
    ]


def _labels(tally: Tally) -> dict[str, str]:
    vendor, _, model = tally.group.partition("/")
    return {"vendor": vendor, "model": model}


def _summary(name: str, what: str, named: Sequence[Named], field: str) -> str:
    samples: list[Sample] = []
    for labels, tally in named:
        times: Times = getattr(tally, field)
        for share, value in (("0.5", times.p50_s), ("0.95", times.p95_s)):
            samples.append(
                Sample({**labels, "quantile": share}, float("nan") if value is None else value)
            )
        samples += [Sample(labels, times.sum_s, "_sum"), Sample(labels, times.count, "_count")]
    return _family(name, "summary", what, samples)


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    name = f"llmdispatcher_{name}"
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    for sample in samples:
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
        lines.append(f"{name}{sample.suffix}{{{labels}}} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float | Decimal) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "NaN" if value != value else repr(value)  # noqa: PLR0124 - NaN alone differs from itself


def _usd(microusd: int) -> Decimal:
    return Decimal(microusd) / MICRO_PER_USD
