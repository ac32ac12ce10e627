"""A program that shares a ledger: of the races in ``laws/test_shared_race.py`` and others.

``python sharer.py PATH THREADS LIMITS``, the last as JSON. Each line of stdin is a round: a model,
how often each thread asks it, and where to be killed, ``served`` or ``never``: in the middle of
the round, with others asking and waiting. Every request that is served is a line of the file
``sent``, with its time, written by the vendor: before anybody is told of it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from books import is_first

from llmdispatcher import (
    Dispatcher,
    FinishReason,
    Ledger,
    LimitReached,
    Limits,
    Request,
    Scripted,
    Usage,
)
from llmdispatcher.models.reply import Finish
from llmdispatcher.vendors.scripted import Steps


class Sharer:
    """Asks from many threads at once."""

    def __init__(self, path: Path, threads: int, limits: Limits) -> None:
        self.path, self.threads, self.limits = path, threads, limits
        self.ledger = Ledger(path, share=True, lock_wait_s=60)
        self.sent = os.open(path.with_name("sent"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def play(self, model: str, times: int, point: str) -> dict[str, int]:
        """Let every thread ask so often."""
        told: list[str] = []

        def reply(_: Request) -> Steps:
            os.write(self.sent, f"{model} {time.time()}\n".encode())
            if point == "served" and len(told) >= self.threads:
                self.perhaps_die(model)
            return ["ok", Finish(FinishReason.STOP, Usage(prompt_tokens=1, completion_tokens=1))]

        def ask() -> None:
            for _ in range(times):
                try:
                    dispatcher.send("hi", max_tokens=10)
                    told.append("served")
                except LimitReached:
                    told.append("refused")

        vendor = Scripted(reply, name="v", model=model)
        with Dispatcher(vendor, ledger=self.ledger, limits={"v": self.limits}) as dispatcher:
            threads = [threading.Thread(target=ask) for _ in range(self.threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.ledger.flush()
        return dict(Counter(told))

    def perhaps_die(self, model: str) -> None:
        """Be the one that is killed in this round, if nobody was yet."""
        if is_first(self.path, f"killed-{model}"):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Play rounds until stdin ends."""
    path, threads, limits = sys.argv[1:]
    sharer = Sharer(Path(path), int(threads), Limits(**json.loads(limits)))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        model, times, point = line.split()
        sys.stdout.write(json.dumps(sharer.play(model, int(times), point)) + "\n")
        sys.stdout.flush()
    sharer.ledger.close()


if __name__ == "__main__":
    main()
