"""Stream from a GGUF file of your own, with limits: ``python own_model.py FILE.gguf "prompt"``."""

import sys

from llmdispatcher import Dispatcher, DispatcherError, Event, LlamaCpp, LoadProgress


def show(event: Event) -> None:
    """Report the loading of the model."""
    if isinstance(event, LoadProgress):
        print(f"\rloading {event.model}: {event.fraction:4.0%}", end="", file=sys.stderr)


def main(path: str, prompt: str) -> int:
    """Print the reply as it is made."""
    spec = LlamaCpp(path, max_memory_mb=8192, max_threads=4)
    with Dispatcher(spec, on_event=show) as d:
        try:
            with d.stream(prompt, max_tokens=300) as stream:
                for delta in stream:
                    print(delta.text, end="", flush=True)
        except DispatcherError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        print(f"\n[{stream.reply.finish_reason}, {stream.reply.usage}]", file=sys.stderr)
    return 0


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:3]))
