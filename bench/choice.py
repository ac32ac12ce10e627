"""Claim: each request goes to the cheapest model that can serve it, and finding it costs nothing.

    python bench/choice.py [--envs DIR] [--seeds unseen|tuning] [--peer-requests 2000] [--only PART]

Situations: those of ``tests/situations.py``. What is right is found by trying every order
(``tests/enumerator.py``). LiteLLM's Router with ``cost-based-routing`` has the same models, prices
and request, in an environment of its own in DIR; those that it has no words for are told apart.
What models have lived before it is not told, since its strategy asks for none of it.

Replay: 10,000 requests of a world with list prices, caches, outages, limits and failures
(``choice_world.py``), on a simulated clock. Dollars paid, divided by those of the optimum that
knows how long each reply gets and who fails when (``choice_optimum.py``). Ours goes twice: as it
comes, where a request waits some seconds for a local server that is full before anybody is paid,
and with the preset of somebody who would rather wait longer than pay. Beside it are whoever guesses
as well as can be, and the optimum of one who waits some seconds for who is out. LiteLLM's Router
has a shorter world of the same seed (``--peer-requests``: one takes it some hundred times as long),
once as it is told that the local model is free, and once with a price of almost nothing in place of
the 0. What is not served counts at the optimum's price.

Selection: processor time from the request to whom to ask, tokens of a short text included.
Switching: from a failure on one socket to the request on the next, on loopback.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import choice_cost
import choice_switch
from choice_optimum import Optimum, well_informed
from choice_replay import PICO_PER_USD, replay, summary
from choice_world import REQUESTS, TUNING, UNSEEN, World
from harness import Child, machine, save, show_table
from rivals import python_with

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))  # where the situations and their judge are

from enumerator import Asked, Offer, choice  # noqa: E402 - found there
from shop import request, shop  # noqa: E402 - as above
from situations import SITUATIONS, Situation  # noqa: E402 - as above

PARTS = ("situations", "replay", "selection", "switching")
GOAL_RATIO = 1.05
GOAL_US = {20: 25.0, 200: 250.0}
GOAL_SWITCH_MS = 5.0
SWITCHES = 1000
PRESET = "cost_optimized"
"""Of a caller to whom money matters more than seconds: it waits longer for a local server that is
full before somebody dearer is asked."""
WAITS_S = 8
ALMOST_NOTHING = 1e-12
"""Dollars per token that a user of LiteLLM states who has found out that 0 is none."""

Result = dict[str, Any]


def main() -> None:
    """Measure, and show tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=Path, help="where the peer's environment is kept")
    parser.add_argument("--seeds", choices=("unseen", "tuning"), default="unseen")
    parser.add_argument("--peer-requests", type=int, default=2_000, help="0 leaves it out")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="save nothing")
    args = parser.parse_args()
    parts = args.only or PARTS
    seeds = UNSEEN if args.seeds == "unseen" else TUNING
    result: Result = {"machine": machine("attrs")}
    with ExitStack() as stack:
        envs = args.envs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = [str(python_with("litellm", envs)), str(HERE / "choice_contender.py")]
        peer = stack.enter_context(Child("litellm", command))
        result["peer"] = f"litellm {peer.hello['version']}"
        if "situations" in parts:
            result["situations"] = situations(peer)
        if "replay" in parts:
            result["replay"] = replays(seeds, peer, args.peer_requests)
    if "selection" in parts:
        result["selection"] = selection()
    if "switching" in parts:
        result["switching"] = switching()
    if not args.only and args.seeds == "unseen":
        save("choice", result)


def situations(peer: Child) -> Result:
    """Put every situation before both."""
    rows = [_row(each, peer) for each in SITUATIONS]
    put = [row for row in rows if row["peer"] is not None]
    show_table(
        "where they differ from the best of all orders",
        ("situation", "best", "ours", "LiteLLM"),
        [
            (row["title"], row["best"], row["ours"], row["peer"] or f"({row['beyond']})")
            for row in rows
            if row["best"] != row["ours"] or row["peer"] not in {row["best"], None}
        ],
    )
    counts = {
        "situations": len(rows),
        "ours_right": sum(row["ours"] == row["best"] for row in rows),
        "put_to_peer": len(put),
        "peer_right": sum(row["peer"] == row["best"] for row in put),
        "beyond_peer": dict(Counter(row["beyond"] for row in rows if row["beyond"])),
    }
    print("\n", counts)
    return {**counts, "rows": rows}


def _row(situation: Situation, peer: Child) -> Result:
    asked, offers = situation.asked, situation.offers
    asking = request(asked, offers)
    with shop(asked, offers) as d:
        found = d.explain(asking).candidates
    ours = f"{found[0].vendor}/{found[0].model}" if found else "nobody"
    beyond = _beyond(asked, offers)
    theirs = None if beyond else peer.ask(situation=_told(asked, offers))
    return {
        "title": situation.title,
        "best": choice(asked, offers),
        "ours": ours,
        "peer": theirs,
        "beyond": beyond,
    }


def _beyond(asked: Asked, offers: Sequence[Offer]) -> str:
    """Return what a situation is about that the Router has no words for; empty if nothing."""
    beyond = {
        "where a request may go": not asked.allow_cloud or asked.vendor is not None,
        "named models": asked.model is not None or any(offer.named_only for offer in offers),
        "a last resort": any(offer.last for offer in offers),
        "what a model can do": bool(asked.needs - {"chat", "choices"}),
        "a limit of dollars for a request": asked.max_cost_usd is not None,
        "strategies": asked.strategy is not None,
        "what time is worth": asked.hour_usd != "0",
        "priorities among equals": any(offer.priority for offer in offers),
        "quality": any(offer.quality is not None for offer in offers),
        "how quick equals are": any(offer.seconds for offer in offers),
        "prices of long prompts": any(offer.above for offer in offers),
        "a price per request": any(offer.per_request != "0" for offer in offers),
    }
    return next((name for name, is_so in beyond.items() if is_so), "")


def _told(asked: Asked, offers: Sequence[Offer]) -> Result:
    """Return a situation as the Router is told it."""
    given = {"max_tokens": asked.max_tokens, "n": None if asked.n == 1 else asked.n}
    rows = [
        {
            "name": offer.name,
            "context": offer.context,
            "down": offer.state in {"dead", "cooling"},
            "facts": {}
            if offer.input is None
            else {
                "input_cost_per_token": float(offer.input) / 1e6,
                "output_cost_per_token": float(offer.output) / 1e6,
            },
        }
        for offer in offers
    ]
    return {
        "offers": rows,
        "messages": [{"role": "user", "content": ("x" * 3 + " ") * (asked.bytes // 4)}],
        "options": {name: value for name, value in given.items() if value is not None},
    }


def replays(seeds: Sequence[int], peer: Child, peer_requests: int) -> Result:
    """Send the requests of every world, ours all of them and the peer the first."""
    rows = []
    for seed in seeds:
        row: Result = {"seed": seed, "all": _replay(World(seed))}
        if peer_requests:
            row["short"] = _beside(seed, peer, peer_requests)
        rows.append(row)
        print(_line(row), flush=True)
    heads = ["seed", "ours", PRESET, "best of guesses", f"optimum that waits {WAITS_S} s"]
    if peer_requests:
        heads += ["ours, short", f"{PRESET}, short", "LiteLLM, short", "LiteLLM, 0 as a price"]
    show_table(
        f"dollars paid / optimum ({REQUESTS} requests; short: {peer_requests})",
        heads,
        [_line(row) for row in rows],
    )
    for name in ("as it comes", PRESET):
        ratios = [row["all"][name]["ratio"] for row in rows]
        waits = [row["all"][name]["mean_wait_s"] for row in rows]
        print(
            f"ours, {name}: {max(ratios):.3f} at most, goal {GOAL_RATIO};"
            f" a reply after {statistics.mean(waits):.2f} s on average"
        )
    return {"requests": REQUESTS, "peer_requests": peer_requests, "worlds": rows}


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [row["all"][name]["ratio"] for name in ("as it comes", PRESET)]
    cells += [row["all"]["informed_ratio"], row["all"]["waiting_optimum_ratio"]]
    if "short" in row:
        short = row["short"]
        cells += [short["ours"][name]["ratio"] for name in ("as it comes", PRESET)]
        cells += [short["free"]["ratio"], short["almost free"]["ratio"]]
    return (str(row["seed"]), *(f"{cell:.3f}" for cell in cells))


def _replay(world: World) -> Result:
    """Send all requests of a world twice: as a dispatcher comes, and set to wait for the cheap."""
    optimum = Optimum(world)
    least = optimum.pico()
    told: Result = {
        "optimum_usd": least / PICO_PER_USD,
        "waiting_optimum_ratio": Optimum(world, WAITS_S).pico() / least,
        "informed_ratio": well_informed(world) / least,
    }
    for name, policies in (("as it comes", {}), (PRESET, {"preset": PRESET})):
        scene = replay(world, **policies)
        owed = sum(optimum.shares([world.asks[number] for number in scene.unserved]))
        told[name] = {"ratio": (scene.meter.pico + owed) / least, **summary(scene)}
    return told


def _beside(seed: int, peer: Child, requests: int) -> Result:
    """Have both send the requests of a shorter world, as densely."""
    world = World(seed, requests)
    optimum = Optimum(world)
    least = optimum.pico()
    row: Result = {"ours": _replay(world)}
    for name, usd in (("free", 0.0), ("almost free", ALMOST_NOTHING)):
        told = peer.ask(world=seed, requests=requests, free=usd)
        owed = sum(optimum.shares([world.asks[number] for number in told["unserved"]]))
        paid = told["usd"] + owed / PICO_PER_USD
        row[name] = {
            **told,
            "unserved": len(told["unserved"]),
            "ratio": paid * PICO_PER_USD / least,
        }
    return row


def selection() -> Result:
    """Show what choosing takes."""
    told = {str(models): choice_cost.measure(models) for models in GOAL_US}
    show_table(
        "processor time of choosing, µs",
        ("candidates", "whom to ask", "and every row told", "goal"),
        [
            (name, f"{us['rank_us']:.1f}", f"{us['with_rows_us']:.1f}", f"{GOAL_US[int(name)]:.0f}")
            for name, us in told.items()
        ],
    )
    return told


def switching() -> Result:
    """Show how long it takes to go on."""
    gaps_ms = sorted(gap * 1e3 for gap in choice_switch.measure(SWITCHES))
    told = {
        "p50_ms": statistics.median(gaps_ms),
        "p99_ms": gaps_ms[int(len(gaps_ms) * 0.99)],
        "times": len(gaps_ms),
    }
    show_table(
        "from a failure to the next vendor, ms",
        ("times", "p50", "p99", "goal of p99"),
        [(str(SWITCHES), f"{told['p50_ms']:.2f}", f"{told['p99_ms']:.2f}", f"{GOAL_SWITCH_MS}")],
    )
    return told


if __name__ == "__main__":
    main()
