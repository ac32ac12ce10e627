"""Search by meaning: ``python search.py EMBEDDER.gguf "question" [RERANKER.gguf]``.

The embedder finds the three texts nearest to the question; a reranker, if there is one, reads each
beside the question and puts them in order.
"""

import sys

from llmdispatcher import Dispatcher, LlamaCpp

TEXTS = [
    "A paperclip holds sheets of paper together.",
    "Rain falls when clouds grow heavy.",
    "Paris is the capital of France.",
    "A model turns text into vectors.",
]


def main(embedder: str, question: str, reranker: str = "") -> None:
    """Print the texts, the best first, each with how near it is to the question."""
    models = [LlamaCpp(embedder), *([LlamaCpp(reranker, name="reranker")] if reranker else [])]
    with Dispatcher(*models) as d:
        asked, *known = d.embed([question, *TEXTS]).vectors
        near = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in known]
        found = sorted(zip(near, TEXTS, strict=True), reverse=True)[:3]
        if reranker:
            scores = d.rerank(question, [text for _, text in found]).scores
            found = sorted(zip(scores, (text for _, text in found), strict=True), reverse=True)
    for score, text in found:
        print(f"{score:6.2f}  {text}")


if __name__ == "__main__":
    if not sys.argv[2:]:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
