"""The text of a training run: the tokenizer, and rows of similar length in groups.

Owns what a run reads, in which order; a seed decides all of it. Pure: what a run
has read can be drawn again without torch, which is how a question is compared
with the training text.
"""

from collections.abc import Iterator

from bpe import Tokenizer, learn_merges
from conversation import CUT_SHARE, Conversation, Conversations, Encoder, Row
from grammar import seeded

SEED_KEY = "llmdispatcher.training.seed"
STEPS_KEY = "llmdispatcher.training.steps"
"""Metadata in the model file, from which its training text can be drawn again."""

VOCABULARY_TOKENS = 2048
TOKENIZER_SAMPLE_CONVERSATIONS = 40_000
ANSWER_SHARE = 0.4
POOL_ROWS = 4096
"""Rows drawn at once; they are sorted by length so that little is padding."""
BATCH_TOKENS = 4096
LONGEST_ROW_TOKENS = 512


def learn_tokenizer(seed: int) -> Tokenizer:
    """Learn the vocabulary from a sample of conversations."""
    random = seeded(seed)
    source = Conversations()
    texts: list[str] = []
    for _ in range(TOKENIZER_SAMPLE_CONVERSATIONS):
        conversation = source.draw(random)
        texts.append(conversation.system)
        for turn in conversation.turns:
            texts.append(turn.question)
            # Answers repeat word for word: most merges should serve questions.
            if random.random() < ANSWER_SHARE:
                texts.append(turn.answer)
    fixed = len(Tokenizer([]).tokens)
    return Tokenizer(learn_merges(texts, VOCABULARY_TOKENS - fixed))


class Pool:
    """Conversations drawn at once, and their rows in groups of one batch each."""

    def __init__(self, conversations: list[Conversation], groups: list[list[Row]]) -> None:
        """Take what was drawn."""
        self.conversations = conversations
        self.groups = groups


def pools(tokenizer: Tokenizer, seed: int) -> Iterator[Pool]:
    """Yield pools for ever; a seed gives always the same."""
    random = seeded(seed + 1)
    source, encoder = Conversations(), Encoder(tokenizer)
    while True:
        drawn = [source.draw(random) for _ in range(POOL_ROWS)]
        cuts = [random.random() < CUT_SHARE for _ in drawn]
        rows = [encoder.encode(c, cut=cut) for c, cut in zip(drawn, cuts, strict=True)]
        rows = [row for row in rows if len(row.tokens) <= LONGEST_ROW_TOKENS]
        groups = _group(sorted(rows, key=lambda row: len(row.tokens)))
        random.shuffle(groups)
        yield Pool(drawn, groups)


def conversations_of(tokenizer: Tokenizer, seed: int, steps: int) -> Iterator[Conversation]:
    """Yield every conversation that a run of so many steps has drawn."""
    done = 0
    for pool in pools(tokenizer, seed):
        yield from pool.conversations
        done += len(pool.groups)
        if done >= steps:
            return


def _group(rows: list[Row]) -> list[list[Row]]:
    """Cut sorted rows into groups of at most BATCH_TOKENS once padded."""
    groups: list[list[Row]] = [[]]
    for row in rows:
        if len(row.tokens) * (len(groups[-1]) + 1) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(row)
    return groups
