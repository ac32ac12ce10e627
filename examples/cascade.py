"""The cheap model first, and the dear one only where that is not enough.

``Scripted`` plays the models here, so that the program runs anywhere. Real ones tell how sure they
are of every token, which is what ``Cascade()`` goes by unless it is told otherwise, as here.
"""

from llmdispatcher import Cascade, Chain, Dispatcher, Price, Reply, Request, Scripted


def small_talk(request: Request) -> str:
    """Know one sum, and talk around the other."""
    return "12" if "7 + 5" in request.messages[0].text else "About two hundred, I think."


def is_number(reply: Reply) -> bool:
    """Say whether an answer is good enough."""
    return reply.text.isdigit()


small = Scripted(small_talk, name="small", price=Price.per_million(10, 10))
large = Scripted("221", name="large", price=Price.per_million(1000, 1000))

with Dispatcher(small, large) as d:
    for question in ("What is 7 + 5?", "What is 13 * 17?"):
        reply = d.send(question, strategy=Cascade(is_number))
        print(question, reply.text, f"for {reply.cost_microusd} micro-dollars")
        for note in reply.decision.notes:
            print(f"    {note}")

    reply = d.send("What is 13 * 17?", strategy=Chain(("draft", "refine")))
    print("in two steps:", *reply.decision.notes, sep="\n    ")
