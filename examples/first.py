"""The shortest program: ask the embedded model, offline, and look at the account of the reply."""

from llmdispatcher import Dispatcher

with Dispatcher() as d:
    reply = d.send("What is the capital of France?", temperature=0)
    print(reply.text)
    print(f"{reply.vendor}/{reply.model}: {reply.usage.total_tokens} tokens, ${reply.cost_usd}")
