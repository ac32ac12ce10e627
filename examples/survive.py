"""A model's process is killed in the middle of a reply, and the program lives to ask again.

What native code does to itself (an assertion that fails, memory without end) looks the same: an
error with its cause, and a new process for the next request.
"""

import psutil

from llmdispatcher import Dispatcher, EngineDied, Event, StreamInterrupted


def tell(event: Event) -> None:
    """Say that an engine died, and where it is written why."""
    if isinstance(event, EngineDied):
        print(f"died: {event.reason}\nreport: {event.report}")


with Dispatcher(on_event=tell) as d:
    stream = d.stream("Tell me a story.", temperature=1.5, seed=3)
    try:
        print(next(stream).text)
        psutil.Process().children()[0].kill()
        for delta in stream:
            print(delta.text, end="")
    except StreamInterrupted as error:
        print(f"cut after {error.partial!r}: {error.__cause__}")

    print(d.send("What is the capital of France?", temperature=0))
