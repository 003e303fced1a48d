"""Images: what may be opened, and how whatever comes becomes eight bits each of red, green and blue.

Decoders are Pillow's alone, and of these only six kinds; the size is read from the header before a single pixel is.
Letters: H and W places.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import stat
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

LARGEST_BYTES = 200_000_000
MOST_PIXELS = 89_478_485
"""Pillow's own limit: a quarter of a gigabyte once it is decoded."""

LONGEST_TO_SHORTEST = 100
"""Brought to the model's shortest side, a thinner strip would be an image of any size."""

THUMBNAIL_PIXELS, THUMBNAIL_QUALITY = 112, 70


class PictureFault(Exception):
    """Why a file is no image that we take. What comes after "is" in a sentence about the file."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that was looked at: where it lies, and the SHA-256 of its bytes: rows are split and copies found by it.

    Of the bytes, not of the pixels: decoders of another version give other pixels, and then the same rows would be
    split otherwise on another machine.
    """

    path: str
    digest: str

    def __str__(self) -> str:
        return self.path


def read_bytes(path: str) -> bytes:
    """The bytes of an image file. Raises PictureFault."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            is_folder = stat.S_ISDIR(about.st_mode)
            raise PictureFault("a folder (--data answers all images in one)" if is_folder else "not a regular file")
        if about.st_size > LARGEST_BYTES:
            raise PictureFault(f"larger than {LARGEST_BYTES // 1_000_000} MB")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise PictureFault(f"not there (looked for in {os.path.dirname(path) or '.'})") from None
    except ValueError:
        raise PictureFault("not a path (it holds a NUL character)") from None
    except OSError as error:
        raise PictureFault(f"not readable ({error.strerror})") from None


def decode(content: bytes) -> Image.Image:
    """An image as RGB, upright. Of an animation, or a file of several pages, the first.

    Turned as its EXIF says; on white where it is transparent; 16 bits brought to 8; CMYK and palettes in their colours.

    Raises:
        PictureFault: it is broken, of no kind that we take, too large, or of numbers that are no colours.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _require_size(*image.size)
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
        except PictureFault:
            raise
        except Image.UnidentifiedImageError:
            raise PictureFault(f"no image of a kind that we read ({', '.join(FORMATS)})") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise PictureFault(f"of more than {MOST_PIXELS:,} pixels") from None
        except Exception as error:  # decoders raise errors of every kind over broken files
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise PictureFault(f"broken ({reason})") from None


def _require_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise PictureFault(f"of more than {MOST_PIXELS:,} pixels")
    if min(width, height) < 1 or max(width, height) > LONGEST_TO_SHORTEST * min(width, height):
        raise PictureFault(f"{width:,} by {height:,} pixels: a strip, of which a model could see nothing")


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise PictureFault("of numbers with fractions, not of colours; write it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits as 8: Pillow's own way cuts all above 255 off, which leaves a white page."""
    import numpy as np
    from PIL import Image

    values_HW = np.asarray(image)
    if values_HW.min() < 0 or values_HW.max() > 65_535:
        raise PictureFault("of numbers beyond 16 bits; write it with 8 or 16")
    return Image.fromarray((values_HW.astype(np.uint32) // 257).astype(np.uint8))


def look_at(path: str) -> str:
    """Decode an image once, and give the SHA-256 of its bytes. Raises PictureFault."""
    content = read_bytes(path)
    decode(content)
    return hashlib.sha256(content).hexdigest()


def open_picture(path: str) -> Image.Image:
    """The image of a row that was read. Raises DataError where it has become another, or none, since then."""
    try:
        return decode(read_bytes(path))
    except PictureFault as fault:
        raise DataError(f"is {fault}", path, "it was an image when the rows were read: restore it") from None


def thumbnail(image: Image.Image) -> str:
    """A small copy as a data URI, a few kilobytes, for a page that fetches nothing."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
