"""Vendors over HTTP on the command line: the options that name one, and the vendor they name."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from llmdispatcher.models.errors import RequestError
from llmdispatcher.vendors.contract import VendorSpec


def add_options(group: argparse._ArgumentGroup) -> None:
    """Add the options."""
    group.add_argument(
        "--vendor",
        metavar="NAME",
        help="ask a server instead, of which --model is then the name of a model: ollama, vllm,"
        " lmstudio, localai, llama-server, openai, anthropic, gemini, openai-compatible…",
    )
    group.add_argument("--base-url", metavar="URL", help="where it is, if not at its usual address")


def vendor(args: argparse.Namespace, limits: Mapping[str, tuple[str, str]]) -> VendorSpec:
    """Make the vendor; ``limits`` are options that only a file can have. Raises RequestError."""
    from llmdispatcher.vendors import discovery  # noqa: PLC0415 - importlib.metadata is slow
    from llmdispatcher.vendors.http.preset import Preset  # noqa: PLC0415 - few need it

    preset = discovery.find(args.vendor)
    if not isinstance(preset, Preset):
        way_out = "--model FILE.gguf runs a file here, and the embedded model needs no option"
        told = f"--vendor takes one that is reached over HTTP, not {args.vendor!r}: {way_out}"
        raise RequestError(told)
    given = [option for field, (option, _) in limits.items() if vars(args).get(field) is not None]
    if given:
        raise RequestError(f"{', '.join(given)}: only for a file that is run here, no --vendor")
    named = vars(args).get("model")
    return preset(base_url=args.base_url, models=[named] if named else [])
