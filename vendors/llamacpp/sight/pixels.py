"""From the bytes of an image file to its pixels: bounded work, believing nothing.

Pillow decodes, and not the stb_image inside llama.cpp's mtmd: stb_image's makers advise against
it for files of strangers, it reads no WebP, and mtmd hands what it cannot read to an audio decoder
and then to ffmpeg. Five formats are read, told apart by their first bytes and not by what anybody
says; size and shape are compared with named bounds before a pixel is unpacked. Nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import attrs

from llmdispatcher.models.errors import BadRequest, ExecutableNotFound, Unsupported
from llmdispatcher.models.message import Image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from PIL.ImageFile import ImageFile

MAX_IMAGE_BYTES = 32 * 2**20
"""Of a file: the largest photographs of telephones have 20 MiB."""
MAX_PIXELS = 50_000_000
"""The sensors of today's cameras; in memory it is 150 MB, a few times over while it is read."""
MAX_RATIO = 200
"""Of the longer side to the shorter: the bound of Qwen2-VL's own preprocessing (smart_resize), and
beyond it what a projector scales to is no longer bounded by its limit of pixels."""

_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "JpegImageFile"),
    b"GIF87a": ("GifImagePlugin", "GifImageFile"),
    b"GIF89a": ("GifImagePlugin", "GifImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"RIFF": ("WebPImagePlugin", "WebPImageFile"),
}
"""First bytes, and the class of Pillow that reads what begins so."""
_READ = "PNG, JPEG, GIF, BMP or WebP"

_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,  # where whoever runs us has made errors of them
    struct.error,
    zlib.error,
)
"""What Pillow raises on damaged files: its own refusals, and whatever its parsers run into."""

_ORIENTATION = 0x0112
"""The tag of EXIF that says how the camera was held."""
_GREY_STEPS = 256
"""Of 16-bit grey values to one of 8 bits."""


@attrs.frozen
class Pixels:
    """A picture: rows from the top, three bytes for each pixel, red, green and blue."""

    width: int
    height: int
    rgb: bytes = attrs.field(repr=False)


def data_of(image: Image) -> bytes:
    """Return the bytes of an image's file; those of a ``data:`` URL are decoded.

    Raises Unsupported for any other URL, since a local model fetches nothing, and BadRequest for
    a file that is empty or larger than MAX_IMAGE_BYTES.
    """
    data = image.data or _from_url(image.url)
    if not 0 < len(data) <= MAX_IMAGE_BYTES:
        allowed = f"an image file of at most {MAX_IMAGE_BYTES} bytes"
        raise BadRequest("image", f"a file of {len(data)} bytes", allowed)
    return data


def _from_url(url: str) -> bytes:
    scheme, _, rest = url.partition(":")
    if scheme.lower() != "data":
        shown = url[:80]
        raise Unsupported(
            "images",
            f"a local model fetches nothing, so it cannot see {shown!r}: read the file yourself and"
            " give Image(data=…), or a data: URL",
        )
    if len(url) > 2 * MAX_IMAGE_BYTES:  # base64 takes four characters for three bytes
        raise BadRequest("image", url, f"an image file of at most {MAX_IMAGE_BYTES} bytes")
    kind, comma, body = rest.partition(",")
    if not comma:
        raise BadRequest("image", url, "a data: URL, with a comma before the data")
    data = unquote_to_bytes(body)
    if not kind.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        raise BadRequest("image", url, "a data: URL whose data is base64") from None


def pixels_of(data: bytes) -> Pixels:
    """Unpack an image file, of an animation the first picture, turned as it is to be seen.

    What is transparent shows the colour beneath, as in llama.cpp. Raises BadRequest for what is
    no image that can be read, or one beyond MAX_PIXELS or MAX_RATIO, and ExecutableNotFound
    without Pillow.
    """
    with _opened(data) as image:
        try:
            image.load()
            turned = _turned(image)
            return Pixels(turned.width, turned.height, turned.tobytes())
        except _faults() as error:
            raise _damaged(data, error) from None


def _opened(data: bytes) -> ImageFile:
    """Read the header of a file alone, and check what it says."""
    found = next((name for start, name in _FORMATS.items() if data.startswith(start)), None)
    if found is None or (data[:4] == b"RIFF" and data[8:12] != b"WEBP"):
        raise BadRequest("image", f"a file that starts with {data[:12]!r}", f"a {_READ} file")
    module, name = found
    try:
        # the classes themselves: Image.open would try other formats, and warns of large images
        opener = getattr(import_module(f"PIL.{module}"), name)
    except ModuleNotFoundError:
        raise ExecutableNotFound("reading images needs Pillow: pip install pillow") from None
    try:
        image: ImageFile = opener(BytesIO(data))
    except _faults() as error:
        raise _damaged(data, error) from None
    _check_size(*image.size)
    return image


def _faults() -> tuple[type[Exception], ...]:
    """Return what Pillow raises, with the error for sizes that its own parsers come upon."""
    return *_FAULTS, import_module("PIL.Image").DecompressionBombError


def _check_size(width: int, height: int) -> None:
    shown, least = f"{width} x {height} pixels", min(width, height)
    if least < 1 or width * height > MAX_PIXELS:
        raise BadRequest("image", shown, f"of at most {MAX_PIXELS:,} pixels, at least 1 x 1")
    if max(width, height) > MAX_RATIO * least:
        allowed = f"at most {MAX_RATIO} times as long as it is wide; cut it into several"
        raise BadRequest("image", shown, allowed)


def _damaged(data: bytes, error: Exception) -> BadRequest:
    told = f"a file of {len(data)} bytes that Pillow cannot read ({error})"
    return BadRequest("image", told, f"a whole {_READ} file")


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _FAULTS:  # a picture whose notes are damaged is still a picture
        return 1


def _turned(image: ImageFile) -> PillowImage:
    """Return it as three bytes for each pixel, the right way up (EXIF 2.32, 4.6.4)."""
    from PIL.Image import Transpose  # noqa: PLC0415 - loads on first use

    how = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(_orientation(image))
    plain = _plain(image)
    return plain if how is None else plain.transpose(how)


def _plain(image: ImageFile) -> PillowImage:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
        return (
            image.convert("I").point(lambda value: value / _GREY_STEPS).convert("L").convert("RGB")
        )
    if image.mode == "P":  # straight to RGB, Pillow warns where a palette has transparent colours
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
