"""Many questions to whoever is there: the servers of this machine, or the embedded model.

    python examples/whoever_answers.py [BASE_URL]

With an address, the host there is asked first: anything that speaks the OpenAI API, such as a vLLM,
a llama-server or a LiteLLM proxy; it is given no key. What fails has its error in its place, and no
question waits for another.
"""

from __future__ import annotations

import sys

from llmdispatcher import Dispatcher, OpenAICompatible, Reply, VendorError

QUESTIONS = [f"What is the capital of {name}?" for name in ("France", "Japan", "Norway", "Peru")]


def main() -> None:
    """Ask all of them at once, and say who answered what."""
    named = [OpenAICompatible(base_url=url, local=True) for url in sys.argv[1:2]]  # free, so first
    with Dispatcher(*named) as d:
        if named:
            d.register_vendor("embedded")  # without any it is there already
        for vendor in d.vendors():
            print(f"{vendor.name}: {vendor.status.state} {vendor.status.detail}")
        results = d.send_many(QUESTIONS, max_tokens=30, temperature=0)
    for question, result in zip(QUESTIONS, results, strict=True):
        match result:
            case Reply():
                tokens = result.usage.total_tokens
                print(f"{question} {result.text} ({result.vendor}, {tokens} tokens)")
            case VendorError():
                print(f"{question} {result.vendor} failed: {result}")
            case _:
                print(f"{question} {type(result).__name__}: {result}")


if __name__ == "__main__":
    main()
