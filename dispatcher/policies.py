"""What a caller sets for a whole dispatcher: how patient and choosy it is to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from llmdispatcher.cache import Cache
from llmdispatcher.ledger import Ledger
from llmdispatcher.models.check import flag, instance
from llmdispatcher.models.errors import BadRequest
from llmdispatcher.models.policy import BreakerPolicy, Limits, RetryPolicy
from llmdispatcher.models.request import Deadlines
from llmdispatcher.models.routing import Routing
from llmdispatcher.models.strategy import STRATEGIES, Strategy, read_strategy


def _routing(value: Routing | None) -> Routing:
    return Routing() if value is None else value


def _strategy(value: object) -> Strategy:
    return read_strategy(value) or STRATEGIES["cost"]  # type: ignore[arg-type]


def _limits(value: Mapping[str, Limits] | None) -> Mapping[str, Limits]:
    given = {} if value is None else value
    if not isinstance(given, Mapping):
        raise BadRequest("limits", value, "a mapping of names, such as {'openai': Limits(…)}")
    for name, limits in given.items():
        if not isinstance(limits, Limits):
            raise BadRequest(f"limits[{name!r}]", limits, "Limits(requests_per_minute=60)")
    return dict(given)


@attrs.frozen(kw_only=True)
class Policies:
    """How patient, stubborn and choosy a dispatcher is to be; None takes the defaults."""

    deadlines: Deadlines | None = attrs.field(
        default=None, validator=instance(Deadlines, "Deadlines(total_s=30)")
    )
    retry: RetryPolicy | None = attrs.field(
        default=None, validator=instance(RetryPolicy, "RetryPolicy(attempts=3)")
    )
    breaker: BreakerPolicy | None = attrs.field(
        default=None, validator=instance(BreakerPolicy, "BreakerPolicy(failures=5)")
    )
    limits: Mapping[str, Limits] = attrs.field(factory=dict, converter=_limits)
    ledger: Ledger | None = attrs.field(
        default=None, validator=instance(Ledger, "Ledger(caps=[SpendingCap(5, period='day')])")
    )
    strategy: Strategy = attrs.field(default=None, converter=_strategy)
    routing: Routing = attrs.field(
        default=None,
        converter=_routing,
        validator=instance(Routing, "Routing(priorities={'openai': 1})"),
    )
    offline: bool = flag(default=False)
    cache: Cache | None = attrs.field(default=None, validator=instance(Cache, "Cache(max_mb=64)"))

    @classmethod
    def over(cls, preset: str | None, **given: Any) -> Policies:  # noqa: ANN401 - its own fields
        """Make policies of what is given, and of a preset for what is not. Raises BadRequest."""
        if preset is None:
            return cls(**given)
        from llmdispatcher.models import presets  # noqa: PLC0415 - reads a file, for few

        row = presets.read_preset(preset)
        told = {name: value for name, value in given.items() if value is not None}
        names = [field.name for field in attrs.fields(cls) if hasattr(row, field.name)]
        return cls(**{name: getattr(row, name) for name in names} | told)
