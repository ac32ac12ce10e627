"""From settings to the arguments of a llama-server, as far as its build knows them. Pure.

Everything that decides about memory is told, whatever its default is in this release or the next.
A flag that a build does not know is left out where the build then does what the flag says, or
where nobody would notice; else the build is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound
from llmdispatcher.vendors.llamacpp.server.build import Build
from llmdispatcher.vendors.llamacpp.server.settings import Settings

MORE_HTTP_THREADS = 4
"""Beside one for each request that is served: for being asked how it is."""


@attrs.frozen(kw_only=True)
class Place:
    """Where a server listens, and which files it is given."""

    host: str
    """An address, or the path of a socket."""
    port: int | None
    key_file: Path
    template_file: Path | None = None


def arguments(settings: Settings, build: Build, place: Place) -> tuple[str, ...]:
    """Return the arguments. Raises ExecutableNotFound where the build lacks what is needed."""
    parts = (
        _model(settings, build),
        _memory(settings, build),
        _compute(settings, build),
        _kind(settings, build),
        _listening(build, place),
    )
    return tuple(word for part in parts for word in part)


def _model(settings: Settings, build: Build) -> Iterator[str]:
    yield from ("--model", str(settings.model))
    yield from _known(build, "--alias", settings.alias)
    if settings.projector is not None:
        yield from _needed(build, "--mmproj", str(settings.projector.absolute()))
    for path in settings.adapters:
        if "," in str(path):
            raise BadRequest(
                "adapters", str(path), "paths without a comma: llama-server splits there"
            )
        yield from _needed(build, "--lora", str(path))
    if settings.adapters:
        yield from _needed(build, "--lora-init-without-apply")


def _memory(settings: Settings, build: Build) -> Iterator[str]:
    yield from ("--ctx-size", str(settings.cells), "--parallel", str(settings.slots))
    batch = str(settings.batch_tokens)
    yield from (*_needed(build, "--batch-size", batch), *_needed(build, "--ubatch-size", batch))
    yield from _needed(build, "--gpu-layers", str(settings.gpu_layers))
    yield from _needed(build, "--cache-type-k", settings.cache_type)
    yield from _needed(build, "--cache-type-v", settings.cache_type)
    # before these flags there was no such cache, and no such fitting
    yield from _known(build, "--cache-ram", str(settings.cache_mib))
    yield from _known(build, "--ctx-checkpoints", str(settings.checkpoints))
    yield from _known(build, "--fit", "off")
    if settings.slots > 1:
        apart = settings.slots * settings.context_tokens
        if not build.has("--kv-unified") and settings.cells < apart:
            raise _too_old("--kv-unified", "share the memory of the context between conversations")
        yield from _known(build, "--kv-unified")
        if settings.cells > settings.context_tokens:
            yield from _known(build, "--kv-unified-per-slot", str(settings.context_tokens))
    if settings.full_window:
        yield from _known(build, "--swa-full")
    # a reply that reaches the end of the context ends; it does not forget its beginning
    yield from _known(build, "--no-context-shift")
    if not settings.packs:
        yield from _known(build, "--no-repack")
    if build.has("--load-mode"):
        yield from ("--load-mode", "mmap" if settings.mapped else "none")
    elif not settings.mapped:
        yield from _known(build, "--no-mmap")


def _compute(settings: Settings, build: Build) -> Iterator[str]:
    threads = str(settings.threads)
    yield from (*_known(build, "--threads", threads), *_known(build, "--threads-batch", threads))
    yield from _known(build, "--threads-http", str(settings.parallel + MORE_HTTP_THREADS))
    # flash attention turns F32 caches into F16; quantised ones need it
    word = {"f32": "off", "f16": "auto"}.get(settings.cache_type, "on")
    if build.flash_takes_word:
        yield from ("--flash-attn", word)
    elif word == "on":
        yield from _needed(build, "--flash-attn")


def _kind(settings: Settings, build: Build) -> Iterator[str]:
    if settings.pooling == "rank":
        yield from _needed(build, "--reranking")
    elif settings.pooling is not None:
        yield from _needed(build, "--embedding")
        yield from _needed(build, "--pooling", settings.pooling)
    else:
        yield from _needed(build, "--jinja")


def _listening(build: Build, place: Place) -> Iterator[str]:
    yield from ("--host", place.host)
    if place.port is not None:
        yield from ("--port", str(place.port))
    yield from _needed(build, "--api-key-file", str(place.key_file))
    if place.template_file is not None:
        yield from _needed(build, "--chat-template-file", str(place.template_file))
    yield from _known(build, "--no-ui" if build.has("--no-ui") else "--no-webui")
    yield from _known(build, "--metrics")
    yield from _known(build, "--slots")
    yield from _known(build, "--offline")
    if build.tells_at_4:
        yield from ("--log-verbosity", "4")


def _known(build: Build, flag: str, *values: str) -> tuple[str, ...]:
    """Return a flag if the build knows it."""
    return (flag, *values) if build.has(flag) else ()


def _needed(build: Build, flag: str, *values: str) -> tuple[str, ...]:
    """Return a flag that must be known. Raises ExecutableNotFound."""
    if not build.has(flag):
        raise _too_old(flag, "be told what to do")
    return (flag, *values)


def _too_old(flag: str, purpose: str) -> ExecutableNotFound:
    return ExecutableNotFound(
        f"this llama-server does not know {flag}, without which it cannot {purpose}: install a"
        " newer llama.cpp"
    )
