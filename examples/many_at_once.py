"""asyncio: many questions at once, each streamed by a task of its own, one of them cancelled."""

import asyncio

from llmdispatcher import AsyncDispatcher

QUESTIONS = [
    "What is the capital of Japan?",
    "What is 20 plus 22?",
    "Who are you?",
    "How do I use my own model?",
]


async def ask(d: AsyncDispatcher, question: str) -> str:
    """Return question and answer as one line."""
    answer = [delta.text async for delta in d.stream(question, temperature=0)]
    return f"{question} {''.join(answer)}"


async def main() -> None:
    """Ask all, give one up, print the rest in order."""
    async with AsyncDispatcher() as d:
        tasks = [asyncio.create_task(ask(d, question)) for question in QUESTIONS]
        doomed = asyncio.create_task(ask(d, "What is the capital of Peru?"))
        await asyncio.sleep(0)
        doomed.cancel()
        for line in await asyncio.gather(*tasks):
            print(line)
        print("in flight:", d.stats().in_flight)


asyncio.run(main())
