"""Writes a first configuration file, of what is found on this machine. It holds no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmdispatcher.config import found, settings
from llmdispatcher.models import presets
from llmdispatcher.models.errors import RequestError
from llmdispatcher.vendors.http.scout import Found

_HEAD = """\
# The configuration of llmdispatcher. `llmdispatcher config check` says whether it is right, and
# `llmdispatcher config show` what it comes to. What is left out keeps its default.

# Whom to ask: a name for each, and what it is. Keys are never here: api_key_env names the
# environment variable that holds one.
vendors:
"""

_TAIL = """
# What comes first: cost (the default), latency, priority, quality, local_first…
strategy: cost

# Patience and stubbornness by one word, over which the sections retry, breaker, deadlines and
# routing say more:
{presets}
# preset: production

# limits:
#   openai: {{requests_per_minute: 60, concurrency: 4}}

# Every attempt and its cost is written down where there are budgets, and they hold:
# budgets:
#   - {{usd: 5, period: day}}
"""


def text(clouds: Sequence[found.Cloud], servers: Sequence[Found], files: Sequence[Path]) -> str:
    """Return the file. Clouds are commented out: whoever removes the # sends text to them."""
    taken: set[str] = set()
    blocks = [_file(path, _unique(_name(path.stem), taken)) for path in files]
    for server in servers:
        name = _unique(server.landmark.preset, taken)
        block = _server(server, name)
        blocks.append(block if server.landmark.stays else _commented(block))
    if not any(not block.lstrip().startswith("#") for block in blocks):
        taken.add("embedded")
        blocks.insert(0, "  embedded: {}  # the small model that comes with the package\n")
    blocks += [_cloud(cloud, _unique(cloud.name, taken)) for cloud in clouds]
    rows = [f"#   {name}: {row.why}" for name, row in presets.presets().items()]
    return _HEAD + "".join(blocks) + _TAIL.format(presets="\n".join(rows))


def write(path: Path, content: str, environment: Mapping[str, str]) -> None:
    """Write the file, which is checked first. Raises RequestError where there is one already."""
    settings.parse(content.encode(), environment, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise RequestError(
            f"{path} is there already, and is not written over: --path names another"
        ) from None
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None


def _file(path: Path, name: str) -> str:
    return (
        f"  {name}:\n    type: llamacpp\n    model_path: {_quoted(str(path.absolute()))}\n"
        "    # max_memory_mb: 8192   # refuse to take more\n"
    )


def _server(server: Found, name: str) -> str:
    title = server.landmark.title
    return (
        f"  {name}:  # {title} on this machine\n    type: {server.landmark.preset}\n"
        f"    base_url: {server.base_url}\n"
    )


def _cloud(cloud: found.Cloud, name: str) -> str:
    return _commented(
        f"  {name}:  # text goes to a cloud, and costs money\n    type: {cloud.name}\n"
        f"    api_key_env: {cloud.variable}\n"
        "    # models: [name-of-a-model]   # without any, only requests that name one get there\n"
    )


def _commented(block: str) -> str:
    return "".join(f"  # {line[2:]}" for line in block.splitlines(keepends=True))


def _name(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.") or "model"


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    taken.add(unique)
    return unique


def _quoted(value: str) -> str:
    """Return text in quotes, as YAML and JSON have it alike."""
    return json.dumps(value, ensure_ascii=False)
