"""A stop button: one thread reads a stream, another one stops it at any moment.

Desktop programs do this: the window's thread calls ``stop``, the worker's loop just ends. The
long story is told by a scripted vendor; any other is stopped in the same way.
"""

import threading

from llmdispatcher import Dispatcher, Scripted

story = Scripted(
    ["Once ", "upon ", "a time ", *[part for _ in range(600) for part in (0.1, "and ")]]
)

with Dispatcher(story) as d:
    stream = d.stream("Tell me a story.")
    button = threading.Timer(2, stream.close)
    button.start()
    for delta in stream:
        print(delta.text, end="", flush=True)
    print("\nstopped after:", len(stream.partial), "characters")
    print("cancelled in the books:", d.stats().total.cancelled)
