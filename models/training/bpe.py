"""Byte-level BPE: learns the merges and encodes text exactly as llama.cpp does.

Owns the pre-tokenisation (that of `tokenizer.ggml.pre = "smollm"`, which keeps
every digit apart), the byte alphabet, the merges and the special tokens. The
evaluation checks the parity with llama.cpp on thousands of strings.
"""

import functools
import itertools
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

PRE_TOKENIZER = "smollm"
"""Name under which llama.cpp knows this pre-tokenisation (llama-vocab.cpp)."""

BEGIN = "<|begin|>"
PAD = "<|pad|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"
"""Ends every turn; llama.cpp recognises this very text as end of generation."""

SPECIAL_TOKENS = (BEGIN, PAD, SYSTEM, USER, ASSISTANT, END)

_WHITESPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Code points that llama.cpp's unicode-data.cpp calls whitespace."""


def _byte_alphabet() -> list[str]:
    """Return the printable character that stands for each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in range(256)]
    others = (byte for byte in range(256) if byte not in printable)
    for offset, byte in enumerate(others):
        alphabet[byte] = chr(256 + offset)
    return alphabet


BYTE_CHARACTERS = _byte_alphabet()


def _character_class(category: str) -> str:
    """Return the ranges of all code points of one category, for a regex class."""
    points = (p for p in range(sys.maxunicode + 1) if unicodedata.category(chr(p))[0] == category)
    runs = itertools.groupby(enumerate(points), key=lambda pair: pair[1] - pair[0])
    ranges = []
    for _, run in runs:
        members = [point for _, point in run]
        ranges.append(f"{re.escape(chr(members[0]))}-{re.escape(chr(members[-1]))}")
    return "".join(ranges)


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the two expressions: one number character, then the words between."""
    letter, number = _character_class("L"), _character_class("N")
    white = _WHITESPACE
    word = (
        f"'(?:[stmd]|re|ve|ll)| ?[{letter}]+| ?[^{white}{letter}{number}]+"
        f"|[{white}]+(?![^{white}])|[{white}]+"
    )
    return re.compile(f"([{number}])"), re.compile(word)


def split_words(text: str) -> list[str]:
    """Cut text into the pieces inside which merges may happen."""
    digit, word = _patterns()
    pieces: list[str] = []
    for index, part in enumerate(digit.split(text)):
        if index % 2:
            pieces.append(part)
        else:
            pieces.extend(word.findall(part))
    return pieces


def _to_symbols(word: str) -> tuple[str, ...]:
    return tuple(BYTE_CHARACTERS[byte] for byte in word.encode())


def _merge(symbols: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    """Join every occurrence of the pair, from the left."""
    merged: list[str] = []
    index = 0
    while index < len(symbols):
        if tuple(symbols[index : index + 2]) == pair:
            merged.append(pair[0] + pair[1])
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return tuple(merged)


def learn_merges(texts: Iterable[str], merges_wanted: int) -> list[tuple[str, str]]:
    """Learn merges, the most frequent pair first; ties go to the smaller pair.

    Args:
        texts: The sample to learn from.
        merges_wanted: How many merges to learn at most.
    """
    counts = Counter(word for text in texts for word in split_words(text))
    words = [_to_symbols(word) for word in counts]
    weights = list(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for index, symbols in enumerate(words):
        for pair in itertools.pairwise(symbols):
            pairs[pair] += weights[index]
            places[pair].add(index)
    merges: list[tuple[str, str]] = []
    while len(merges) < merges_wanted and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        if pairs[best] < 2:  # a pair seen once saves nothing
            break
        merges.append(best)
        for index in sorted(places.pop(best)):
            old, new = words[index], _merge(words[index], best)
            for pair in itertools.pairwise(old):
                pairs[pair] -= weights[index]
            for pair in itertools.pairwise(new):
                pairs[pair] += weights[index]
                places[pair].add(index)
            words[index] = new
        del pairs[best]
    return merges


class Tokenizer:
    """Encodes text to token ids; ids 0.. are the specials, then bytes, then merges."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        """Build the vocabulary from merges, the strongest first."""
        self.merges = list(merges)
        self.tokens = [*SPECIAL_TOKENS, *BYTE_CHARACTERS, *(a + b for a, b in self.merges)]
        # Two different pairs may spell the same token: llama.cpp allows no duplicate.
        self.tokens = list(dict.fromkeys(self.tokens))
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._words: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of text, in which special tokens mean nothing."""
        return [token for word in split_words(text) for token in self._encode_word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; special tokens are left out."""
        alphabet = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}
        tokens = (self.tokens[token] for token in ids if token >= len(SPECIAL_TOKENS))
        return bytes(alphabet[c] for token in tokens for c in token).decode(errors="replace")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        known = self._words.get(word)
        if known is None:
            known = tuple(self.ids[symbol] for symbol in self._join(list(_to_symbols(word))))
            self._words[word] = known
        return known

    def _join(self, symbols: list[str]) -> list[str]:
        """Apply the merges: always the lowest rank, the leftmost of equals."""
        unranked = len(self._ranks)
        while len(symbols) > 1:
            ranks = [self._ranks.get(pair, unranked) for pair in itertools.pairwise(symbols)]
            best = min(ranks)
            if best == unranked:
                break
            index = ranks.index(best)
            symbols[index : index + 2] = [symbols[index] + symbols[index + 1]]
        return symbols
