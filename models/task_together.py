"""Facts that say more together than each alone, by which one task is told from another."""

from __future__ import annotations

MAKES = frozenset({"opens: make", "opens: change", "opens: look"})
CODE = frozenset({"code word", "query word", "language"})
CODE_SHOWN = frozenset({"shows code", "some code", "names code"})
ASKS = frozenset({"opens: ask", "ends as question"})
BAD = frozenset({"fault", "amiss", "tests fail", "error", "trouble", "trace", "named error", "log"})
FIGURES = frozenset({"data word", "statistic", "table", "data file", "log"})
TOOLS = frozenset({"tool", "flow", "when", "then"})

TOGETHER: tuple[tuple[str, tuple[frozenset[str], ...], frozenset[str]], ...] = (
    ("makes code", (MAKES, CODE), frozenset({"flow", "when"})),
    ("makes letters", (MAKES | {"opens: suggest"}, frozenset({"letters"})), CODE),
    ("makes nothing of code", (frozenset({"opens: make"}),), CODE | CODE_SHOWN | {"flow", "tool"}),
    ("changes nothing shown", (frozenset({"first: change"}),), FIGURES | BAD | {"flow", "tool"}),
    ("changes code", (frozenset({"opens: change"}), CODE | CODE_SHOWN), frozenset({"flow"})),
    (
        "code and fault",
        (CODE | CODE_SHOWN, frozenset({"fault", "amiss", "tests fail"})),
        frozenset(),
    ),
    (
        "mends",
        (frozenset({"opens: mend"}),),
        frozenset({"error", "trace", "named error", "wording"}),
    ),
    (
        "mends an error",
        (frozenset({"opens: mend", "cause"}), frozenset({"error", "trace", "named error", "log"})),
        frozenset(),
    ),
    (
        "service in trouble",
        (frozenset({"service"}), frozenset({"trouble", "error", "amiss", "named error"})),
        frozenset(),
    ),
    (
        "judges code",
        (frozenset({"opens: judge", "review word"}), CODE | CODE_SHOWN | {"repository", "diff"}),
        frozenset(),
    ),
    ("asks of code", (ASKS, CODE_SHOWN), frozenset({"error", "trace"})),
    (
        "plain question",
        (ASKS,),
        BAD
        | FIGURES
        | CODE_SHOWN
        | {
            "superlative",
            "sum",
            "puzzle",
            "review word",
            "summary",
            "table",
            "numbers",
            "formula",
            "business",
        },
    ),
    (
        "question with numbers",
        (ASKS, frozenset({"numbers"})),
        FIGURES | BAD | {"some code", "shows code"},
    ),
    (
        "question with a sum",
        (ASKS, frozenset({"sum", "puzzle"}), frozenset({"a number", "numbers"})),
        FIGURES | BAD,
    ),
    (
        "question of data",
        (
            ASKS | {"opens: look", "opens: measure"},
            frozenset({"superlative"}),
            frozenset({"business", "data word"}),
        ),
        frozenset({"repository"}),
    ),
    (
        "figures of data",
        (frozenset({"statistic", "superlative"}), FIGURES | {"business"}),
        frozenset(),
    ),
    ("figures in prose", (frozenset({"statistic"}),), frozenset({"numbers"})),
    (
        "shortens",
        (
            frozenset({"summary", "opens: shorten"}),
            frozenset({"reading", "placeholder", "repository"}),
        ),
        frozenset(),
    ),
    ("tools in order", (frozenset({"opens: deed", "deeds x2"}), TOOLS), frozenset()),
    (
        "tools at a time",
        (frozenset({"when", "flow"}), frozenset({"tool", "opens: deed", "flow"})),
        frozenset(),
    ),
    ("names a language", (frozenset({"language"}),), ASKS | BAD | {"flow", "tool", "repository"}),
    (
        "shell command",
        (frozenset({"shell word"}),),
        ASKS | BAD | FIGURES | TOOLS | {"summary", "reading", "letters", "sum", "puzzle"},
    ),
    ("better code", (frozenset({"better"}), CODE | CODE_SHOWN | {"repository"}), BAD),
    (
        "explains",
        (frozenset({"opens: explain"}),),
        BAD | CODE_SHOWN | {"summary", "reading", "letters"},
    ),
    (
        "plays",
        (frozenset({"opens: pose", "play"}),),
        CODE | {"review word", "repository", "summary"},
    ),
    (
        "nothing of note",
        (),
        frozenset({"opens: ask", "ends as question"})
        | CODE
        | FIGURES
        | BAD
        | TOOLS
        | {"summary", "reading", "sum", "puzzle", "review word"},
    ),
)
"""A name, sets of facts of each of which one must be there, and facts that must not be."""
