"""What Gemini's dialect would send, looked at by the official SDK's types, and sent."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from google.genai import types
from loopback import Loopback

from llmdispatcher import Request
from llmdispatcher.vendors.gemini.wire import GeminiWire
from llmdispatcher.vendors.wire.exchange import Ask, Head, Site, Wire

SITE = Site(vendor="gemini")
WIRE: Wire = GeminiWire(SITE)
WHOLE: Wire = GeminiWire(Site(vendor="gemini", streaming=False))
KEY = "AIza-not-a-key"
OLD, NEW = "gemini-2.5-flash", "gemini-3.8-flash"

TOP = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}


def ask(request: Request, model: str = OLD, wire: Wire = WIRE) -> Ask:
    """Return what would be sent."""
    (exchange,) = wire.exchanges(request, wire.card(model))
    return exchange.ask


def body(request: Request, model: str = OLD, wire: Wire = WIRE) -> dict[str, Any]:
    """Return the body of it, which the official SDK's types accept whole."""
    sent = dict(ask(request, model, wire).body or {})
    assert json.loads(json.dumps(sent, allow_nan=False)) == sent
    validated(sent)
    return sent


def validated(sent: dict[str, Any]) -> None:
    """Have the SDK's types look at every field; they refuse those that they do not know."""
    for content in sent["contents"]:
        types.Content.model_validate(content)
    if "systemInstruction" in sent:
        types.Content.model_validate(sent["systemInstruction"])
    for each in sent.get("tools", []):
        types.Tool.model_validate(each)
    if "toolConfig" in sent:
        types.ToolConfig.model_validate(sent["toolConfig"])
    config = types.GenerationConfig.model_validate(sent.get("generationConfig", {}))
    assert not config.model_extra


def sent(server: Loopback, ask: Ask) -> httpx2.Response:
    """Send an ask as the transport would. Raises what an error answer stands for."""
    url = f"{server.url}/v1beta{ask.path}"
    with httpx2.Client(headers={"x-goog-api-key": KEY}, trust_env=False) as http:
        got = http.get(url) if ask.body is None else http.post(url, json=ask.body)
    if got.status_code >= 300:
        raise WIRE.fault(Head(got.status_code, dict(got.headers)), got.content)
    return got
