"""Image files of strangers: what is read of them, and that the rest is refused in bounded work."""

from __future__ import annotations

import base64
import struct
import time
import tracemalloc
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image as Pillow
from vision_gguf import picture, png

from llmdispatcher.models.errors import BadRequest, Unsupported
from llmdispatcher.models.message import Image
from llmdispatcher.vendors.llamacpp.sight.pixels import (
    MAX_IMAGE_BYTES,
    MAX_PIXELS,
    MAX_RATIO,
    data_of,
    pixels_of,
)

FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
SLOWEST_S = 30.0
MEMORY_BYTES = 16 * 2**20


def encoded(image: Pillow.Image, form: str = "PNG", **options: object) -> bytes:
    """Write an image file."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_five_formats_are_read(form: str) -> None:
    """Rows come from the top, each pixel as red, green and blue, whatever the media type says."""
    top, bottom = (200, 30, 60), (20, 150, 250)
    image = Pillow.new("RGB", (40, 32), top)
    image.paste(bottom, (0, 16, 40, 32))

    found = pixels_of(encoded(image, form))

    rows = np.frombuffer(found.rgb, np.uint8).reshape(found.height, found.width, 3).astype(int)
    assert (found.width, found.height) == (40, 32)
    assert np.abs(rows[:12] - top).max() < 16
    assert np.abs(rows[20:] - bottom).max() < 16


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_colour_becomes_three_bytes(mode: str) -> None:
    """Grey, palettes, transparency, print colours and 16 bits come out as the same grey."""
    grey = np.full((8, 8), 51456 if mode == "I;16" else 201, np.uint16 if mode == "I;16" else "u1")
    image = Pillow.fromarray(grey)
    if mode == "P":
        image = image.quantize(4)
    elif mode != "I;16":
        image = image.convert("L" if mode == "LA" else "RGB").convert(mode)
    found = pixels_of(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))

    allowed = {"1": range(256)}.get(mode, range(196, 208))
    assert len(found.rgb) == 8 * 8 * 3
    assert set(found.rgb) <= set(allowed)


def test_a_palette_with_transparent_colours_is_read() -> None:
    """Pillow warns of these unless they are converted in two steps."""
    image = Pillow.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    data = encoded(image, transparency=b"\xff\x00")
    assert set(pixels_of(data).rgb) == {10, 20, 30}


@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, 0), (2, 1), (3, 3), (4, 2), (5, 0), (6, 1), (7, 3), (8, 2)],
)
def test_photographs_are_turned_as_the_camera_was_held(orientation: int, corner: int) -> None:
    """The mark in the first corner of what is stored is seen where EXIF says that it belongs."""
    image = Pillow.new("RGB", (32, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Pillow.Exif()
    exif[0x0112] = orientation

    found = pixels_of(encoded(image, "PNG", exif=exif))

    lying = orientation > 4
    assert (found.width, found.height) == ((16, 32) if lying else (32, 16))
    rows = np.frombuffer(found.rgb, np.uint8).reshape(found.height, found.width, 3)[..., 0]
    corners = [rows[0, 0], rows[0, -1], rows[-1, 0], rows[-1, -1]]
    assert [int(value) > 0 for value in corners] == [at == corner for at in range(4)]


def test_of_an_animation_the_first_picture_is_read() -> None:
    """A model sees one picture."""
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels_of(data).rgb[:3] == b"\xff\x00\x00"


PHOTO = picture(0, (300, 200), "JPEG")
HOSTILE = {
    "nothing but a signature": b"\x89PNG\r\n\x1a\n",
    "text": b"hello, this is no image",
    "one byte": b"\x00",
    "sound": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32),
    "a film": b"\x00\x00\x00\x20ftypisom" + bytes(64),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "TIFF": b"II*\x00" + bytes(64),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "a bomb": png(65_535, 65_535, bytes(1000)),
    "just too many pixels": png(MAX_PIXELS // 4 + 1, 4),
    "too thin": png(MAX_RATIO + 1, 1, bytes(4 * MAX_RATIO)),
    "no pixels": png(0, 10),
    "half a PNG": picture()[: len(picture()) // 2],
    "half a JPEG": PHOTO[: len(PHOTO) // 2],
    "JPEG garbage": PHOTO[:200] + bytes(range(256)) * 16,
    "an empty JPEG": b"\xff\xd8\xff\xd9",
    "half a GIF": picture(0, (64, 64), "GIF")[:200],
    "half a BMP": picture(0, (64, 64), "BMP")[:500],
    "half a WebP": picture(0, (64, 64), "WEBP")[:100],
    "a BMP of huge promise": b"BM"
    + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_whole_image_is_refused(name: str) -> None:
    """Each is a BadRequest in bounded time and memory, whatever it promises."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        with pytest.raises(BadRequest, match="image"):
            pixels_of(HOSTILE[name])
        took_s, peak = time.monotonic() - started, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took_s < SLOWEST_S
    assert peak < MEMORY_BYTES


def damage(form: str, count: int) -> int:
    """Damage an image in many ways; returns how many were refused."""
    random = Random(form)  # noqa: S311 - repeatable damage, no secret
    whole, refused = picture(1, (48, 40), form), 0
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(random.randrange(1, 6)):
            data[random.randrange(len(data))] = random.randrange(256)
        if random.random() < 0.2:
            del data[random.randrange(len(data)) :]
        try:
            found = pixels_of(bytes(data))
            assert len(found.rgb) == found.width * found.height * 3
        except BadRequest:
            refused += 1
    return refused


@pytest.mark.parametrize("form", FORMS)
def test_damaged_images_are_read_or_refused(form: str) -> None:
    """Whatever is changed in a file, it gives pixels or a BadRequest."""
    assert 0 < damage(form, 300) < 300


@pytest.mark.soak
@pytest.mark.parametrize("form", FORMS)
def test_many_damaged_images_are_read_or_refused(form: str) -> None:
    """As above, ten thousand of each format."""
    assert 0 < damage(form, 10_000) < 10_000


@pytest.mark.parametrize("encoding", ["base64", "percent"])
def test_data_urls_are_decoded(encoding: str) -> None:
    """Both ways to write data into a URL give the file, line ends in it or not."""
    data = picture()
    if encoding == "percent":
        url = "data:image/png," + "".join(f"%{byte:02x}" for byte in data)
    else:
        url = "data:image/png;base64," + base64.encodebytes(data).decode()
    assert data_of(Image(url=url)) == data
    assert data_of(Image(data=data)) == data


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://localhost/a", "file:///etc/passwd", "/a.png", "x"]
)
def test_nothing_is_fetched(url: str) -> None:
    """A URL that is no data is refused with the way out: no file is opened, nobody is called."""
    with pytest.raises(Unsupported, match=r"fetches nothing.*Image\(data=…\)") as caught:
        data_of(Image(url=url))
    assert caught.value.feature == "images"


@pytest.mark.parametrize(
    "image",
    [
        Image(url="data:image/png;base64"),
        Image(url="data:image/png;base64,"),
        Image(url="data:image/png;base64,????"),
        Image(url="data:image/png;base64,abc"),
        Image(url="data:;base64," + "A" * (2 * MAX_IMAGE_BYTES)),
        Image(data=bytes(MAX_IMAGE_BYTES + 1)),
    ],
    ids=["no comma", "no data", "no base64", "cut base64", "long URL", "large file"],
)
def test_data_that_cannot_be_is_refused(image: Image) -> None:
    """A URL that is none, or a file beyond the bound, is a BadRequest."""
    with pytest.raises(BadRequest, match="image"):
        data_of(image)
