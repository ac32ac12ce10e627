"""What a dispatcher that is made from a configuration file has beside all others."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from llmdispatcher.models.errors import ConfigError, DispatcherError, Problem

if TYPE_CHECKING:
    from llmdispatcher.config.source import Source
    from llmdispatcher.desk import Desk
    from llmdispatcher.listener import OnEvent
    from llmdispatcher.models.event import ConfigReloaded
    from llmdispatcher.vendors.contract import VendorSpec


class Configured:
    """Both dispatchers are this, too. Reading a file loads what reads it, and nothing else does."""

    _desk: Desk
    _source: Source | None = None

    if TYPE_CHECKING:

        def __init__(self, *vendors: VendorSpec | str, **options: Any) -> None:  # noqa: ANN401 - of all kinds
            """See ``Dispatcher``."""

    @classmethod
    def from_config(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        allow_cloud: bool | None = None,
        watch: bool = False,
        on_event: OnEvent | None = None,
    ) -> Self:
        """Make a dispatcher as a configuration file says.

        Without a path, the first of these that is there is read: the file that the environment
        variable LLMDISPATCHER_CONFIG names, ``./llmdispatcher.yaml``, and ``llmdispatcher.yaml`` in
        the user's configuration folder. Where none is, what is found is used: local servers that
        answer, the embedded model, and with ``allow_cloud=True`` the clouds whose key is in the
        environment, which a request asks by the name of one of their models.

        Args:
            path: the file.
            allow_cloud: whether clouds that no file names may be used; None leaves it to the file.
            watch: look once a second whether the file has changed, and reload it then.
            on_event: see ``Dispatcher``.

        Raises ConfigError with every problem of the file.
        """
        from llmdispatcher.config.source import Source, Wish  # noqa: PLC0415 - yaml takes a while

        return cls.from_source(Source(Wish(path, allow_cloud, watch), on_event), on_event)

    @classmethod
    def from_source(cls, source: Source, on_event: OnEvent | None) -> Self:
        """Make a dispatcher of what was read; for ``from_config`` and the command line."""
        try:
            specs = source.specs if source.names_vendors else ()
            made = cls(*specs, on_event=on_event, **source.keywords())
        except DispatcherError as error:
            source.close()
            if isinstance(error, ConfigError):
                raise source.settings.placed(error) from error
            raise
        made._adopt(source)
        return made

    def _adopt(self, source: Source) -> None:
        self._source = source
        source.attach(self._desk)

    def reload(self) -> ConfigReloaded:
        """Read the configuration again, and go by it from now on: all of it, or nothing.

        Requests under way end as they began. Vendors that are said as before keep what they have
        loaded; others are started anew, and the old ones end with their last request. Breakers
        remember, and the ledger goes on. Returns what changed, which ``on_event`` is told too.

        Raises ConfigError where the file is wrong, and then changes nothing; also for a dispatcher
        that was not made by ``from_config``.
        """
        if self._source is None:
            message = "this dispatcher was not made from a file: Dispatcher.from_config() makes one"
            raise ConfigError([Problem(message)])
        return self._source.reload()
