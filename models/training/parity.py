"""Compares the model file with what it was made from: its tokens and its logits.

Owns the strings that both tokenizers cut, and the comparison with torch.
"""

from pathlib import Path
from random import Random
from typing import Any

import llama_cpp
import numpy as np
import torch
from answerer import CONTEXT_TOKENS, EVALUATION_SEED, Answerer
from bpe import Tokenizer
from conversation import Conversations
from grammar import seeded
from llama_cpp import Llama
from network import Network
from scores import Score

PARITY_STRINGS = 12_000
PARITY_LONGEST_CHARACTERS = 40
LOGIT_CONVERSATIONS = 20

ALPHABETS = (
    "abc XYZ 0129 .,;!?'\"-_()[]{}<>/\\@#$%^&*+=~`|",
    " \t\n\r  \xa0\u2003\u3000",
    "éàüßñçøåœæÉÖ żłšč",
    "αβγδ ΑΒΓ жизнь Привет",
    "日本語中文한국어 ひらがなカタカナ",
    "مرحبا שלום नमस्ते สวัสดี",
    "٠١٢٣ ²³½ ⅷ ①",
    "😀🎉🚀👩\u200d💻 ❤️ ☃ €£¥ ∑√∞ →",
    "e\u0301a\u0308 's 't 're 'll n't don't it's",
)


def _random_text(random: Random) -> str:
    length = random.randint(1, PARITY_LONGEST_CHARACTERS)
    alphabets = random.sample(ALPHABETS, random.randint(1, 3))
    return "".join(random.choice(random.choice(alphabets)) for _ in range(length))


def tokenizer_parity(answerer: Answerer, tokenizer: Tokenizer) -> Score:
    """Count the strings that llama.cpp cuts into the same tokens as we do."""
    random = seeded(EVALUATION_SEED)
    source = Conversations()
    texts = [source.draw(random).turns[0].question for _ in range(PARITY_STRINGS // 2)]
    texts += [_random_text(random) for _ in range(PARITY_STRINGS // 2)]
    equal = sum(
        answerer.llama.tokenize(text.encode(), add_bos=False, special=False)
        == tokenizer.encode(text)
        for text in texts
    )
    return Score("Tokenizer parity with llama.cpp", equal, len(texts))


def largest_logit_difference(path: Path, network: Network, tokenizer: Tokenizer) -> float:
    """Compare torch with llama.cpp on an F32 file and an F32 key-value store."""
    f32 = llama_cpp.GGML_TYPE_F32
    llama: Any = Llama(
        str(path), n_ctx=CONTEXT_TOKENS, logits_all=True, type_k=f32, type_v=f32, verbose=False
    )
    random = seeded(EVALUATION_SEED)
    source = Conversations()
    worst = 0.0
    for _ in range(LOGIT_CONVERSATIONS):
        turn = source.draw(random).turns[0]
        tokens = tokenizer.encode(f"{turn.question}\n{turn.answer}")
        llama.reset()
        llama.eval(tokens)
        theirs = np.asarray(llama.scores[: len(tokens)])
        with torch.no_grad():
            ours = network(torch.tensor([tokens]))[0].numpy()
        worst = max(worst, float(np.abs(theirs - ours).max()))
    return worst
