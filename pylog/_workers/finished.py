"""The offsets that are finished above a watermark, as the text that is committed with it.

    "pylog1:"  base64 of zlib of unsigned LEB128 numbers: for each run of finished offsets, in order,
               how far it begins behind the end of the run before (behind the watermark for the first), its length

zlib's checksum tells what is damaged.  Anything else, a user's own text too, means that nothing is known to be
finished: a record is then handled again, never left out.  A text takes at most TEXT_BYTES_MAX; the runs that do not
fit, the highest, are left out.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable, Sequence

Runs = Sequence[tuple[int, int]]  # [start, end), sorted, apart

PREFIX = "pylog1:"
TEXT_BYTES_MAX = 4096  # what a broker takes unless offset.metadata.max.bytes says otherwise
PACKED_BYTES_MAX = (TEXT_BYTES_MAX - len(PREFIX)) // 4 * 3
UNPACKED_BYTES_MAX = 1 << 20
# A shortened list is compressed anew: so much below what the ratio promises that it mostly fits at once.
SHORTENING = 0.95


def encode_finished(watermark: int, runs: Runs) -> str:
    """The text for these runs, all at or above the watermark; "" for none."""
    count = len(runs)
    while count > 0:
        packed = zlib.compress(_numbers(watermark, runs[:count]))
        if len(packed) <= PACKED_BYTES_MAX:
            return PREFIX + base64.b64encode(packed).decode()
        count = min(count - 1, int(count * PACKED_BYTES_MAX / len(packed) * SHORTENING))
    return ""


def decode_finished(watermark: int, text: str) -> list[tuple[int, int]]:
    """The runs; [] where the text is none of ours."""
    if not text.startswith(PREFIX):
        return []
    try:
        unpacking = zlib.decompressobj()
        packed = base64.b64decode(text[len(PREFIX) :], validate=True)
        numbers = _parse(unpacking.decompress(packed, UNPACKED_BYTES_MAX))
    except (binascii.Error, zlib.error, ValueError):
        return []
    if not unpacking.eof or len(numbers) % 2:
        return []
    runs, at = [], watermark
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        runs.append((at + gap, at + gap + length))
        at += gap + length
    return runs


def _numbers(watermark: int, runs: Iterable[tuple[int, int]]) -> bytes:
    data, at = bytearray(), watermark
    for start, end in runs:
        for number in (start - at, end - start):
            while number > 0x7F:
                data.append(number & 0x7F | 0x80)
                number >>= 7
            data.append(number)
        at = end
    return bytes(data)


def _parse(data: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number = shift = 0
    if shift:
        raise ValueError("the last number ends early")
    return numbers
