"""Several vendors: the cheapest is asked first, and the next one when it fails.

``Scripted`` plays the vendors here, so that the program runs anywhere: the first is free and
fails in the middle of its reply, the second costs money and serves.
"""

from llmdispatcher import Dispatcher, Event, Fallback, Overloaded, Price, Scripted


def tell(event: Event) -> None:
    """Say when the next vendor is asked."""
    if isinstance(event, Fallback):
        print(f"{event.failed} failed ({event.reason}), asking {event.next}")


free = Scripted(["Paperclips can", Overloaded("no room")], name="free")
paid = Scripted(
    ["Bookmark, ", "zipper pull, ", "reset pin."], name="paid", price=Price.per_million(100, 400)
)

with Dispatcher(paid, free, on_event=tell) as d:
    reply = d.send("Name three uses of a paperclip.")
    print(reply.text)
    for row in reply.decision.candidates:
        print(f"considered {row.vendor}: {row.note}")
    for attempt in reply.decision.attempts:
        print(f"{attempt.vendor}: {attempt.outcome}, {attempt.cost_microusd} micro-dollars")
    print(f"in all ${reply.cost_usd}")
