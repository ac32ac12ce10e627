"""Guesses the language of a text by its script, or by its small words. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

LOOK_CHARS = 2_000
"""Looked at from the start of a text."""

LEAST_WORDS = 2
"""Small words of a language that must be there before it is named."""

LEAST_SHARE = 0.3
"""Of the letters in a script before it is taken for that of the text."""

SCRIPTS = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
    "HEBREW": "he",
    "GREEK": "el",
    "THAI": "th",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
}
"""From the first word of a letter's Unicode name to the language that most often uses it."""

UKRAINIAN = frozenset("іїєґ")

SMALL_WORDS = {
    "en": "the and of to in is that for it with are this you not have on what how can please my i "
    "was be do does from as your write a an which by or me",
    "de": "der die das und ist nicht ein eine ich mir mich zu den mit von für auf wie was bitte im "
    "sich des dem kann wird sind oder auch alle warum",
    "fr": "le la les des et est une un pour que qui dans pas sur avec ce je vous nous quel quelle "
    "du au en comment pourquoi ne quelques",
    "es": "el la los las de y es una un para que en con por no se cómo qué del al mi su está son "
    "cuál lo",
    "it": "il la di e che è un una per non con sono come del della le gli mi si nel perché cosa",
    "pt": "o a os as de e é um uma para que em com não por como do da no na se está qual você",
    "nl": "de het een en is van ik niet dat in op te voor met zijn hoe wat kan je mijn aan er",
    "sv": "och att det är en ett som jag på inte för med av till den hur vad kan om har",
    "pl": "i w nie się na jest że to do z jak co czy dla mi po o są",
    "tr": "ve bir bu için ne mi ile da de var çok olan ben",
}

_WORD = re.compile(r"[^\W\d_]+")


def tongue(text: str) -> str | None:
    """Return the ISO 639-1 code of the likeliest language, or None where nothing tells."""
    start = text[:LOOK_CHARS].lower()
    return _by_script(start) or _by_small_words(start)


def _by_script(text: str) -> str | None:
    if text.isascii():
        return None
    letters = [letter for letter in text if letter.isalpha()]
    foreign = Counter(
        SCRIPTS[name]
        for letter in letters
        if letter > "ʯ" and (name := unicodedata.name(letter, "?").split(" ")[0]) in SCRIPTS
    )
    if not letters or foreign.total() < LEAST_SHARE * len(letters):
        return None
    if foreign["ja"]:
        return "ja"
    best = foreign.most_common(1)[0][0]
    return "uk" if best == "ru" and UKRAINIAN & set(text) else best


def _by_small_words(text: str) -> str | None:
    words = Counter(_WORD.findall(text))
    found = {
        language: sum(words[word] for word in small.split())
        for language, small in SMALL_WORDS.items()
    }
    best = max(found, key=found.__getitem__)
    rivals = sorted(found.values())
    return best if found[best] >= LEAST_WORDS and rivals[-1] > rivals[-2] else None
