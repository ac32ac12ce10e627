"""A corpus of files made to hurt a reader of GGUF, and the means to write more.

``HOSTILE`` maps a name to the bytes of a file and to words that the refusal must contain.
"""

from __future__ import annotations

import struct

from llmdispatcher.vendors.llamacpp.files.gguf import MAX_KEYS, MAX_TENSORS

U8, U16, U32, I32, F32, BOOL, TEXT, ARRAY, U64 = 0, 2, 4, 5, 6, 7, 8, 9, 10
HUGE = 2**63


def text(value: bytes) -> bytes:
    """Write a length and the bytes."""
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, type_id: int, value: bytes) -> bytes:
    """Write a metadata entry."""
    return text(name) + struct.pack("<I", type_id) + value


def number(name: bytes, value: int) -> bytes:
    """Write an entry of 32 bits."""
    return key(name, U32, struct.pack("<I", value))


def array(name: bytes, type_id: int, count: int, data: bytes = b"") -> bytes:
    """Write an entry that is an array."""
    return key(name, ARRAY, struct.pack("<IQ", type_id, count) + data)


def tensor(
    name: bytes = b"t", shape: tuple[int, ...] = (32,), type_id: int = 0, offset: int = 0
) -> bytes:
    """Write an entry of the tensor table."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", type_id, offset)


ARCHITECTURE = key(b"general.architecture", TEXT, text(b"llama"))
FACTS = {
    b"general.architecture": ARCHITECTURE,
    b"llama.block_count": number(b"llama.block_count", 1),
    b"llama.context_length": number(b"llama.context_length", 64),
    b"llama.embedding_length": number(b"llama.embedding_length", 32),
    b"tokenizer.ggml.model": key(b"tokenizer.ggml.model", TEXT, text(b"llama")),
    b"tokenizer.ggml.tokens": array(b"tokenizer.ggml.tokens", TEXT, 2, text(b"a") + text(b"b")),
}


def whole(
    *more: bytes,
    tensors: tuple[bytes, ...] = (tensor(),),
    facts: dict[bytes, bytes] | None = None,
    data_bytes: int = 128,
) -> bytes:
    """Write a file: a valid one, but for what is given."""
    keys = [*(FACTS | (facts or {})).values(), *more]
    start = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head = start + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + data_bytes)


def counted(tensors: int, keys: int, version: int = 3) -> bytes:
    """Write a file with any numbers at the start."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + bytes(200)


def fact(name: bytes, value: bytes) -> bytes:
    """Write a valid file in which one fact is another."""
    return whole(facts={name: value})


def epsilon(value: float) -> bytes:
    """Write what is added before a root is taken."""
    return key(b"llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", value))


def tokens(*words: bytes) -> bytes:
    """Write a vocabulary."""
    return array(b"tokenizer.ggml.tokens", TEXT, len(words), b"".join(map(text, words)))


def shaped(*shape: int, type_id: int = 0) -> bytes:
    """Write a file whose one tensor has this shape."""
    return whole(tensors=(tensor(shape=shape, type_id=type_id),))


HOSTILE: dict[str, tuple[bytes, str]] = {
    # -- other things than GGUF
    "empty": (b"", "is empty"),
    "one byte": (b"G", "not a GGUF file"),
    "zeros": (bytes(4096), "filled with zeros"),
    "a page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
    "a page after space": (b"\xef\xbb\xbf\n  <HTML>", "a web page"),
    "an error of a bucket": (b"<?xml version='1.0'?><Error>", "a web page"),
    "an error in words": (b"Entry not found", "begins with 'Entry not found'"),
    "an error as JSON": (b'{"error":"Repository not found"}', "a text that begins"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "safetensors": (struct.pack("<Q", 64) + b'{"weight": {}}', "a safetensors file"),
    "PyTorch": (b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "a PyTorch checkpoint"),
    "a zip": (b"PK\x03\x04" + bytes(26) + b"model.gguf", "a ZIP archive"),
    "a pickle": (b"\x80\x02}q\x00.", "a Python pickle"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "NumPy": (b"\x93NUMPY\x01\x00", "a NumPy array"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive"),
    "Zstandard": (b"\x28\xb5\x2f\xfd\x00", "a Zstandard archive"),
    "GGJT": (b"tjgg\x03\x00\x00\x00", "old GGJT"),
    "GGMF": (b"fmgg\x01\x00\x00\x00", "old GGMF"),
    "GGML": (b"lmgg\x00\x00\x00\x00", "old GGML"),
    "GGLA": (b"algg\x01\x00\x00\x00", "old GGLA"),
    "a llamafile": (b"MZqFpD='\n", "a llamafile"),
    "a program": (b"\x7fELF\x02\x01\x01", "a program"),
    "noise": (bytes(range(128, 256)), "of an unknown kind"),
    # -- versions and counts
    "magic alone": (b"GGUF", "the version"),
    "no counts": (b"GGUF\x03\x00\x00\x00", "the tensor count"),
    "version 0": (counted(0, 0, 0), "version 0"),
    "version 1": (counted(0, 0, 1), "version 1"),
    "version 4": (counted(0, 0, 4), "update llmdispatcher"),
    "version of noise": (counted(0, 0, 0xDEADBEEF), "is damaged"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(64), "big-endian"),
    "2^40 tensors": (counted(2**40, 0), "1099511627776 tensors"),
    "2^64-1 tensors": (counted(2**64 - 1, 0), "tensors"),
    "too many tensors": (counted(MAX_TENSORS + 1, 0), "tensors"),
    "2^40 keys": (counted(0, 2**40), "1099511627776 metadata keys"),
    "too many keys": (counted(0, MAX_KEYS + 1), "metadata keys"),
    "more keys than there are": (whole()[:16] + struct.pack("<Q", 9) + whole()[24:], ""),
    "more tensors than there are": (whole()[:8] + struct.pack("<Q", 9) + whole()[16:], ""),
    # -- keys
    "empty key": (whole(number(b"", 1)), "empty"),
    "key twice": (whole(number(b"a", 1), number(b"a", 1)), "there already"),
    "key of 2^63 bytes": (whole(struct.pack("<Q", HUGE)), "cut short or damaged"),
    "key of 2^64-1 bytes": (whole(struct.pack("<Q", 2**64 - 1)), "cut short or damaged"),
    "key too long": (whole(number(b"k" * 70_000, 1), data_bytes=100_000), "65535"),
    "key not UTF-8": (whole(number(b"\xff\xfe", 1)), "not UTF-8"),
    "key of half a letter": (whole(number(b"\xc3", 1)), "not UTF-8"),
    "unknown type": (whole(key(b"a", 13, bytes(8))), "type 13"),
    "value type 2^32-1": (whole(key(b"a", 2**32 - 1, bytes(8))), "type 4294967295"),
    "text of 2^63 bytes": (whole(key(b"a", TEXT, struct.pack("<Q", HUGE))), "cut short"),
    "text beyond the end": (whole(key(b"a", TEXT, struct.pack("<Q", 10_000))), "10"),
    # -- arrays
    "array in array": (whole(array(b"a", ARRAY, 1, bytes(32))), "array of type 9"),
    "array of unknowns": (whole(array(b"a", 99, 1, bytes(32))), "array of type 99"),
    "array of 2^63 bytes": (whole(array(b"a", U8, HUGE)), "cut short"),
    "array of 2^61 words": (whole(array(b"a", U64, 2**61)), "cut short"),
    "array of 2^63 texts": (whole(array(b"a", TEXT, HUGE)), "cut short"),
    "array of texts, too long": (whole(array(b"a", TEXT, 65, bytes(64 * 8))), ""),
    "array of a text of 2^63": (
        whole(array(b"a", TEXT, 100, bytes(80) + struct.pack("<Q", HUGE) + bytes(900))),
        "cut short",
    ),
    "array of a text of 2^64-1": (
        whole(array(b"a", TEXT, 100, struct.pack("<Q", 2**64 - 1) * 100)),
        "cut short",
    ),
    "array of a text to the end": (
        whole(array(b"a", TEXT, 100, bytes(80) + struct.pack("<Q", 720) + bytes(720))),
        "",
    ),
    # -- facts
    "no architecture": (fact(b"general.architecture", number(b"x", 1)), "does not say what it is"),
    "architecture a number": (
        fact(b"general.architecture", number(b"general.architecture", 1)),
        "must be text",
    ),
    "no layers": (fact(b"llama.block_count", number(b"llama.block_count", 0)), "1 to 512"),
    "513 layers": (fact(b"llama.block_count", number(b"llama.block_count", 513)), "at most 512"),
    "layers a text": (
        fact(b"llama.block_count", key(b"llama.block_count", TEXT, text(b"1"))),
        "must be a number",
    ),
    "layers a fraction": (
        fact(b"llama.block_count", key(b"llama.block_count", F32, struct.pack("<f", 1))),
        "must be a number",
    ),
    "layers true": (
        fact(b"llama.block_count", key(b"llama.block_count", BOOL, b"\x01")),
        "must be a number",
    ),
    "layers negative": (
        fact(b"llama.block_count", key(b"llama.block_count", I32, struct.pack("<i", -1))),
        "must be a number",
    ),
    "no context": (fact(b"llama.context_length", number(b"x", 1)), "context_length"),
    "no width": (fact(b"llama.embedding_length", number(b"x", 1)), "embedding_length"),
    "context of 2^63": (
        fact(b"llama.context_length", key(b"llama.context_length", U64, struct.pack("<Q", HUGE))),
        "must be a number",
    ),
    "heads for other layers": (
        whole(array(b"llama.attention.head_count", U32, 2, bytes(8))),
        "one for each layer",
    ),
    "heads by the thousand": (
        whole(array(b"llama.attention.head_count", U32, 2000, bytes(8000))),
        "must be",
    ),
    "2,000 experts": (whole(number(b"llama.expert_count", 2000)), "at most 1024"),
    "experts none of which is used": (whole(number(b"llama.expert_count", 8)), "consistent"),
    "more experts used than there are": (
        whole(number(b"llama.expert_count", 8), number(b"llama.expert_used_count", 9)),
        "consistent",
    ),
    "experts without a count": (whole(number(b"llama.expert_used_count", 2)), "consistent"),
    "extra layers": (whole(number(b"llama.nextn_predict_layers", 2)), "block_count"),
    "experts in uneven groups": (
        whole(
            number(b"llama.expert_count", 8),
            number(b"llama.expert_used_count", 2),
            number(b"llama.expert_group_count", 3),
        ),
        "consistent",
    ),
    "all groups of experts used": (
        whole(
            number(b"llama.expert_count", 8),
            number(b"llama.expert_used_count", 2),
            number(b"llama.expert_group_count", 2),
            number(b"llama.expert_group_used_count", 2),
        ),
        "consistent",
    ),
    "groups without experts": (whole(number(b"llama.expert_group_count", 1)), "consistent"),
    "an unknown scaling": (
        whole(key(b"llama.rope.scaling.type", TEXT, text(b"bogus"))),
        "one of none, linear",
    ),
    "epsilon negative": (whole(epsilon(-1e-5)), "a small fraction"),
    "epsilon not a number": (whole(epsilon(float("nan"))), "a small fraction"),
    "an adapter of 2^31 layers": (
        whole(
            key(b"general.type", TEXT, text(b"adapter")),
            facts={b"llama.block_count": number(b"llama.block_count", 2**31 - 1)},
        ),
        "at most 512",
    ),
    "no tokenizer": (fact(b"tokenizer.ggml.model", number(b"x", 1)), "can write text"),
    "a tokenizer of nothing": (
        fact(b"tokenizer.ggml.model", key(b"tokenizer.ggml.model", TEXT, text(b"none"))),
        "can write text",
    ),
    "a tokenizer that cannot write": (
        fact(b"tokenizer.ggml.model", key(b"tokenizer.ggml.model", TEXT, text(b"bert"))),
        "can write text",
    ),
    "no tokens": (fact(b"tokenizer.ggml.tokens", number(b"x", 1)), "with 0 tokens"),
    "two tokens the same": (fact(b"tokenizer.ggml.tokens", tokens(b"a", b"b", b"a")), "the same"),
    "many tokens the same": (fact(b"tokenizer.ggml.tokens", tokens(*[b"ab"] * 100)), "the same"),
    "template a number": (whole(number(b"tokenizer.chat_template", 1)), "must be text"),
    "two million parts": (whole(number(b"split.count", 2_000_000)), "NAME-00001-of"),
    # -- alignment
    "alignment 0": (whole(number(b"general.alignment", 0)), "power of two"),
    "alignment 3": (whole(number(b"general.alignment", 3)), "power of two"),
    "alignment 2^31": (whole(number(b"general.alignment", 2**31)), "promises"),
    "alignment a text": (whole(key(b"general.alignment", TEXT, text(b"32"))), "power of two"),
    "alignment true": (whole(key(b"general.alignment", BOOL, b"\x01")), "power of two"),
    "alignment of 64 bits": (
        whole(key(b"general.alignment", U64, struct.pack("<Q", 2**62))),
        "promises",
    ),
    # -- tensors
    "tensor twice": (whole(tensors=(tensor(), tensor(offset=128)), data_bytes=256), "there twice"),
    "name too long": (whole(tensors=(tensor(b"n" * 64),)), "most allowed is 63"),
    "name of 2^63 bytes": (whole(tensors=(struct.pack("<Q", HUGE),)), "cut short"),
    "name not UTF-8": (whole(tensors=(tensor(b"\xff"),)), "not UTF-8"),
    "five dimensions": (shaped(1, 1, 1, 1, 1), "5 dimensions"),
    "2^32-1 dimensions": (
        whole(tensors=(text(b"t") + struct.pack("<I", 2**32 - 1) + bytes(64),)),
        "4294967295 dimensions",
    ),
    "a size of 0": (shaped(32, 0), "impossible shape"),
    "a size of 2^63": (shaped(HUGE), "impossible shape"),
    "sizes that overflow": (shaped(2**32, 2**32), "impossible shape"),
    "sizes that overflow to 0": (shaped(2**32, 2**32, 2**32, 2**32), "impossible shape"),
    "bytes that overflow": (shaped(2**62), "beyond"),
    "type 31, given up": (shaped(32, type_id=31), "type 31"),
    "type 43, not known": (shaped(32, type_id=43), "type 43"),
    "type 2^32-1": (shaped(32, type_id=2**32 - 1), "type 4294967295"),
    "half a block": (shaped(16, type_id=8), "not whole Q8_0 blocks"),
    "data beyond the end": (whole(data_bytes=100), "promises"),
    "data of 2^60 bytes": (shaped(2**58), "promises"),
    "no data at all": (whole(data_bytes=0), "promises"),
    "a first offset": (whole(tensors=(tensor(offset=32),), data_bytes=256), "0 was expected"),
    "an offset of 2^63": (whole(tensors=(tensor(offset=HUGE),)), "0 was expected"),
    "data that overlap": (
        whole(tensors=(tensor(), tensor(b"u", offset=64)), data_bytes=512),
        "128 was expected",
    ),
    "data with a gap": (
        whole(tensors=(tensor(), tensor(b"u", offset=256)), data_bytes=512),
        "128 was expected",
    ),
    "data not aligned": (
        whole(tensors=(tensor(shape=(3,)), tensor(b"u", offset=12)), data_bytes=512),
        "32 was expected",
    ),
}
