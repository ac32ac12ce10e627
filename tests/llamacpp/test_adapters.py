"""LoRA adapters: they change what merging would, by name and scale, only where they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from bare_llama import Bare
from leaks import growth_bytes
from lora_gguf import Lora, lora, merged
from tiny_gguf import tiny_model
from vision_gguf import tiny_projector

from llmdispatcher.models.errors import (
    CorruptModel,
    ModelFileMissing,
    Unsupported,
    UnsupportedArchitecture,
    VendorError,
)
from llmdispatcher.vendors.llamacpp.binding.adapters import Adapters, Wanted, size_bytes
from llmdispatcher.vendors.llamacpp.files.gguf import read_header

PROMPT = [1, 300, 301, 302, 303, 310, 320]
MADE = {
    "style": Lora(seed=1),
    "words": Lora(seed=2, more=("token_embd.weight", "output.weight"), alpha=8.0),
    "small": Lora(seed=3, targets=("attn_v",), storage="F16"),
}
EXACT = 1e-4
"""Between weights that were added beforehand and in each step: sums in another order."""
GROWTH_BYTES = 4 * 2**20


@attrs.frozen
class Adapted:
    """A model with adapters."""

    path: Path
    files: Mapping[str, Path]
    bare: Bare
    adapters: Adapters

    def scores(self, wanted: Wanted) -> npt.NDArray[np.float32]:
        """Decode the prompt with these adapters."""
        self.bare.empty()
        self.adapters.use(self.bare.context, wanted)
        return self.bare.decode(PROMPT)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adapted]:
    """A model with three adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    path = tiny_model(folder / "base.gguf", vocab=600, context=512)
    files = {
        name: lora(folder / f"{name}.gguf", path, **attrs.asdict(made, recurse=False))
        for name, made in MADE.items()
    }
    with Bare(path) as bare:
        adapters = Adapters(bare.model, read_header(path), files)
        yield Adapted(path, files, bare, adapters)
        adapters.close()


def test_without_an_adapter_nothing_changes(adapted: Adapted) -> None:
    """Loaded adapters change nothing until they are used, nor at scale 0, nor after they were."""
    with Bare(adapted.path) as alone:
        plain = alone.decode(PROMPT)

    assert np.array_equal(plain, adapted.scores(()))
    assert np.array_equal(plain, adapted.scores((("style", 0.0),)))
    assert np.abs(adapted.scores((("style", 1.0),)) - plain).max() > 0.5
    assert np.array_equal(plain, adapted.scores(()))


@pytest.mark.parametrize(
    "wanted",
    [
        (("style", 1.0),),
        (("style", -0.5),),
        (("words", 1.0),),
        (("style", 0.5), ("words", 2.0)),
    ],
    ids=str,
)
def test_it_is_as_if_it_had_been_merged(wanted: Wanted, adapted: Adapted, tmp_path: Path) -> None:
    """Scores are those of a model whose weights have the adapters' products added."""
    plain = adapted.scores(())
    whole = merged(tmp_path / "m.gguf", adapted.path, *[(scale, MADE[n]) for n, scale in wanted])
    with Bare(whole) as bare:
        expected = bare.decode(PROMPT)

    found = adapted.scores(wanted)

    assert np.abs(found - expected).max() < EXACT
    assert np.abs(found - plain).max() > 0.5


def test_adapters_are_used_from_the_next_decode_on(adapted: Adapted) -> None:
    """What was decoded stays; the same set again costs no call, and order does not matter."""
    first = adapted.scores((("style", 1.0), ("small", 1.0)))
    assert np.abs(adapted.scores((("small", 1.0), ("style", 1.0))) - first).max() < EXACT
    assert np.array_equal(adapted.scores((("style", 1.0),)), adapted.scores((("style", 1.0),)))
    assert np.abs(adapted.scores((("style", 2.0),)) - first).max() > 0.1


def test_an_unknown_adapter_is_refused(adapted: Adapted) -> None:
    """The error names it and those that there are; what is used stays as it was."""
    style = adapted.scores((("style", 1.0),))
    for attempt in (adapted.adapters.check, lambda w: adapted.adapters.use(None, w)):
        with pytest.raises(Unsupported, match="no adapter 'other'; loaded: small, style, words"):
            attempt((("other", 1.0), ("style", 1.0)))
    adapted.adapters.check((("style", 1.0),))
    assert np.array_equal(adapted.bare.decode([5], len(PROMPT)), _after(adapted, style))


def _after(adapted: Adapted, style: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Decode the prompt with the first adapter, and one more token."""
    assert np.array_equal(adapted.scores((("style", 1.0),)), style)
    return adapted.bare.decode([5], len(PROMPT))


def test_memory_for_planning_is_that_of_the_weights(adapted: Adapted) -> None:
    """It is known from the header alone: both halves of all it changes."""
    rank, layers, width = 4, 2, 32
    kv = 16
    assert size_bytes(adapted.files["small"]) == layers * rank * (width + kv) * 2


def test_without_files_there_is_none(adapted: Adapted) -> None:
    """A model without adapters refuses all, and using none is fine; closing twice is once."""
    with Bare(adapted.path) as bare:
        none = Adapters(bare.model, read_header(adapted.path), {})
        none.use(bare.context, ())
        with pytest.raises(Unsupported, match="loaded: none is"):
            none.check((("style", 1.0),))
        none.close()
        none.close()


Maker = Callable[[Path, Path], Path]


def like(**fields: Any) -> Maker:
    """Write an adapter of the model."""
    return lambda path, base: lora(path, base, **fields)


def of_another(**fields: Any) -> Maker:
    """Write an adapter of a model of another shape."""

    def write(path: Path, _: Path) -> Path:
        other = tiny_model(path.with_name("other.gguf"), vocab=600, context=512, **fields)
        return lora(path, other, more=("output.weight",))

    return write


def changed(change: Callable[[bytes], bytes]) -> Maker:
    """Write an adapter of the model, and change its bytes."""

    def write(path: Path, base: Path) -> Path:
        lora(path, base)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


BAD: dict[str, tuple[Maker, type[VendorError], str]] = {
    "missing": (lambda path, _: path, ModelFileMissing, "there is no file"),
    "a folder": (lambda path, _: path.parent, ModelFileMissing, "is a folder"),
    "empty": (changed(lambda _: b""), CorruptModel, "empty"),
    "garbage": (changed(lambda _: b"garbage" * 99), CorruptModel, "GGUF"),
    "cut short": (changed(lambda data: data[:-9]), CorruptModel, "cut short"),
    "cut in its header": (changed(lambda data: data[:400]), CorruptModel, "cut short"),
    "a whole model": (lambda _, base: base, UnsupportedArchitecture, "file of kind model"),
    "a projector": (lambda path, _: tiny_projector(path), UnsupportedArchitecture, "kind mmproj"),
    "another kind of adapter": (like(adapter="ia3"), UnsupportedArchitecture, "of kind ia3"),
    "of another architecture": (
        like(architecture="qwen2"),
        UnsupportedArchitecture,
        "is for qwen2 models, and this one is llama",
    ),
    "of a wider model": (
        of_another(width=64),
        UnsupportedArchitecture,
        "and it is (32, 600, 1, 1)",
    ),
    "of a deeper model": (of_another(layers=3), UnsupportedArchitecture, "does not have"),
    "activated": (like(tokens=(5, 6)), UnsupportedArchitecture, "aLoRA"),
    "of no tensors": (like(targets=()), CorruptModel, "at least one pair"),
    "of integers": (
        changed(
            lambda data: data.replace(
                b"adapter.lora.alpha\x06\0\0\0", b"adapter.lora.alpha\x05\0\0\0"
            )
        ),
        CorruptModel,
        "stored as F32",
    ),
    "with a text for a number": (like(alpha="sixteen"), CorruptModel, "adapter.lora.alpha"),
    "with an endless number": (like(alpha=float("inf")), CorruptModel, "adapter.lora.alpha"),
    "with a half": (
        changed(lambda data: data.replace(b"attn_q.weight.lora_a", b"attn_k.weight.lora_a")),
        CorruptModel,
        "changed by a pair",
    ),
    "with another half": (
        changed(lambda data: data.replace(b"attn_q.weight.lora_a", b"attn_q.weight.lora_x")),
        CorruptModel,
        "named after a weight",
    ),
    "stored otherwise": (like(storage="Q4_0", rank=32), CorruptModel, "Q4_0"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_adapter_of_the_model_is_refused(
    name: str, adapted: Adapted, tmp_path: Path
) -> None:
    """Each is a typed error that names the adapter, before llama.cpp could end the process."""
    write, kind, told = BAD[name]
    path = write(tmp_path / "bad.gguf", adapted.path)
    files = {**adapted.files, "mine": path}
    with pytest.raises(kind) as caught:
        Adapters(adapted.bare.model, read_header(adapted.path), files)
    assert str(caught.value).startswith("adapter 'mine': ")
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_embedding_that_is_the_output_too_is_not_changed(tmp_path: Path) -> None:
    """llama.cpp would end the process: halves that fit the one do not fit the other."""
    base = tiny_model(tmp_path / "tied.gguf", vocab=600, extra={"output.weight": None})
    path = lora(tmp_path / "lora.gguf", base, more=("token_embd.weight",))
    with (
        Bare(base) as bare,
        pytest.raises(UnsupportedArchitecture, match="also uses as its output"),
    ):
        Adapters(bare.model, read_header(base), {"mine": path})


@pytest.mark.parametrize("turns", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_changing_adapters_leaves_no_memory_behind(turns: int, adapted: Adapted) -> None:
    """Sets that change with every request do not add up."""
    sets: list[Wanted] = [(), (("style", 1.0),), (("words", 0.5), ("small", 1.0))]

    def use(turn: int) -> None:
        adapted.scores(sets[turn % len(sets)])

    assert growth_bytes(use, turns, GROWTH_BYTES) < GROWTH_BYTES


def test_adapters_can_be_opened_and_closed(adapted: Adapted) -> None:
    """Closing gives the memory back."""
    header = read_header(adapted.path)

    def open_and_close(_: int) -> None:
        Adapters(adapted.bare.model, header, adapted.files).close()

    assert growth_bytes(open_and_close, 50, GROWTH_BYTES) < GROWTH_BYTES
