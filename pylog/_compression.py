"""Codecs of a record batch's block of records.

    number  name    block
    0       none    the records themselves
    1       gzip    gzip members (RFC 1952)
    2       snappy  xerial framing, or one raw snappy block
    3       lz4     LZ4 frames
    4       zstd    zstd frames (RFC 8878)

A block is valid where it is made of whole frames and nothing else. `decompress` never gives, and never touches memory
for, more than `bytes_max` bytes, whatever a block claims: lz4 and zstd frames are walked first, which bounds what they
can give by their count of blocks; where that is too high, the output buffer is the limit. Other threads run while a
codec works.
"""

import importlib
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import lz4.frame  # type: ignore[import-untyped]
import numpy as np

from pylog._errors import UnsupportedCodecError

if TYPE_CHECKING:
    from typing_extensions import Buffer

CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CODEC_NAMES: Final = {number: name for name, number in CODECS.items()}

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

GZIP_WBITS = 31
GZIP_STEP_BYTES = 1 << 16

XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER = struct.Struct(">8sii")
XERIAL_CHUNK_BYTES = 32 << 10
SNAPPY_COPY_BYTES_MAX, SNAPPY_COPY_CODE_BYTES = 64, 3

LZ4_MAGIC = 0x184D2204
ZSTD_MAGIC = 0xFD2FB528
ZSTD_BLOCK_BYTES_MAX = 128 << 10
ZSTD_LEVEL = 3
SKIPPABLE_MAGIC, SKIPPABLE_MASK = 0x184D2A50, 0xFFFFFFF0


class Frame(NamedTuple):
    """Where a frame lies in its block, and the most bytes that it can give."""

    start: int
    end: int
    content_bytes_max: int


def check_codec(codec: int) -> None:
    """Raise UnsupportedCodecError unless blocks of this codec can be read and written here."""
    if codec not in CODEC_NAMES:
        raise _unknown(codec)
    if codec in (SNAPPY, ZSTD):
        _cramjam(codec)


def compress(codec: int, data: "Buffer") -> bytes:
    """Compress a batch's records into one block, in the form that every Kafka client reads.

    Raises:
        UnsupportedCodecError: the codec is unknown, or its library is not installed.
    """
    match codec:
        case 0:
            return bytes(data)
        case 1:
            return zlib.compress(data, wbits=GZIP_WBITS)
        case 2:
            return _snappy_compress(memoryview(data).cast("B"))
        case 3:
            # Java reads only frames of independent blocks; the stated size lets readers allocate once.
            return bytes(lz4.frame.compress(data, block_linked=False, store_size=True))
        case 4:
            return bytes(_cramjam(ZSTD).zstd.compress(data, level=ZSTD_LEVEL))
    raise _unknown(codec)


def decompress(codec: int, data: "Buffer", *, bytes_max: int) -> memoryview:
    """Decompress one block into at most `bytes_max` bytes.

    Returns:
        The records: a view of `data` for codec 0, else new memory.

    Raises:
        ValueError: the block is broken or gives more than `bytes_max` bytes; the caller knows file and position.
        UnsupportedCodecError: the codec is unknown, or its library is not installed.
    """
    block = memoryview(data).cast("B")
    match codec:
        case 0:
            if len(block) > bytes_max:
                raise _too_large("none", bytes_max)
            return block
        case 1:
            return memoryview(_gzip_decompress(block, bytes_max))
        case 2:
            return _snappy_decompress(block, bytes_max)
        case 3:
            return memoryview(_lz4_decompress(block, bytes_max))
        case 4:
            return _zstd_decompress(block, bytes_max)
    raise _unknown(codec)


def _unknown(codec: int) -> UnsupportedCodecError:
    known = ", ".join(f"{number} {name}" for number, name in CODEC_NAMES.items())
    return UnsupportedCodecError(f"codec {codec} is unknown; known are {known}")


def _too_large(name: str, bytes_max: int) -> ValueError:
    return ValueError(f"{name} block: gives more than {bytes_max} bytes")


def _cramjam(codec: int) -> Any:
    """The module, imported at the first block that needs it: most logs have none."""
    try:
        return importlib.import_module("cramjam")
    except ImportError as error:
        raise UnsupportedCodecError(
            f"codec {CODEC_NAMES[codec]} needs cramjam: pip install pylog-storage[codecs]"
        ) from error


def _gzip_decompress(block: memoryview, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    size = at = 0
    while at < len(block) or not pieces:
        member = zlib.decompressobj(GZIP_WBITS)
        while not member.eof:
            # Fed in steps: zlib copies all input behind a member's end, and many small members would cost their square.
            step = block[at : at + GZIP_STEP_BYTES]
            if not step:
                raise ValueError(f"gzip block: ends within a member, after {at} bytes")
            try:
                piece = member.decompress(step, bytes_max - size + 1)
            except zlib.error as error:
                raise ValueError(f"gzip block: {error}, near byte {at}") from error
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                raise _too_large("gzip", bytes_max)
            at += len(step) - len(member.unused_data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _snappy_compress(data: memoryview) -> bytes:
    snappy = _cramjam(SNAPPY).snappy
    pieces: list[Any] = [XERIAL_HEADER.pack(XERIAL_MAGIC, 1, 1)]
    for at in range(0, len(data), XERIAL_CHUNK_BYTES):
        raw = snappy.compress_raw(data[at : at + XERIAL_CHUNK_BYTES])
        pieces += len(raw).to_bytes(4), raw
    return b"".join(pieces)


def _snappy_decompress(block: memoryview, bytes_max: int) -> memoryview:
    # No raw block can begin with the magic: behind a length, its third byte would copy from before the start.
    chunks = _xerial_chunks(block) if block[:8] == XERIAL_MAGIC else [block]
    sizes = [_snappy_size(chunk) for chunk in chunks]
    if sum(sizes) > bytes_max:
        raise _too_large("snappy", bytes_max)
    cramjam = _cramjam(SNAPPY)
    out = np.empty(sum(sizes), np.uint8).data
    at = 0
    for chunk, size in zip(chunks, sizes, strict=True):
        try:
            cramjam.snappy.decompress_raw_into(chunk, out[at : at + size])
        except cramjam.DecompressionError as error:
            raise ValueError(f"snappy block: {error}") from error
        at += size
    return out


def _xerial_chunks(block: memoryview) -> list[memoryview]:
    chunks = []
    at = 0
    while at < len(block):
        if block[at : at + 8] == XERIAL_MAGIC:  # streams may follow one another, each with its header
            header = block[at : at + XERIAL_HEADER.size]
            if len(header) < XERIAL_HEADER.size or XERIAL_HEADER.unpack(header)[1] < 1:
                raise ValueError(f"snappy block: broken xerial header at byte {at}")
            at += XERIAL_HEADER.size
            continue
        size = int.from_bytes(block[at : at + 4])
        chunk = block[at + 4 : at + 4 + size]
        if at + 4 + size > len(block):
            raise ValueError(f"snappy block: chunk of {size} bytes at byte {at} passes the end, {len(block)}")
        chunks.append(chunk)
        at += 4 + size
    return chunks


def _snappy_size(chunk: memoryview) -> int:
    """The length that a raw block's preamble states, checked against what its bytes can possibly give."""
    size = 0
    for i, byte in enumerate(chunk[:5]):
        size |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if size * SNAPPY_COPY_CODE_BYTES > SNAPPY_COPY_BYTES_MAX * len(chunk):
                raise ValueError(f"snappy block: states {size} bytes, more than {len(chunk)} compressed ones can give")
            return size
    raise ValueError("snappy block: broken length")


def _lz4_decompress(block: memoryview, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    left = bytes_max
    for start, end, content_bytes_max in _frames("lz4", block):
        decompressor = lz4.frame.LZ4FrameDecompressor()
        try:
            # One byte more than allowed: room for the proof of excess, and for the end mark to be read in one call.
            piece = decompressor.decompress(block[start:end], max_length=min(left, content_bytes_max) + 1)
        except RuntimeError as error:
            raise ValueError(f"lz4 block: frame at byte {start}: {error}") from error
        left -= len(piece)
        if left < 0:
            raise _too_large("lz4", bytes_max)
        if not decompressor.eof:
            raise ValueError(f"lz4 block: frame at byte {start} does not end")
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _zstd_decompress(block: memoryview, bytes_max: int) -> memoryview:
    content_bytes_max = sum(frame.content_bytes_max for frame in _frames("zstd", block))
    cramjam = _cramjam(ZSTD)
    # Pages of the buffer that nothing is written to cost nothing, so the bound may be loose.
    out = np.empty(min(content_bytes_max, bytes_max), np.uint8).data
    try:
        size = cramjam.zstd.decompress_into(block, out)
    except cramjam.DecompressionError as error:
        if content_bytes_max > bytes_max and "whole buffer" in str(error):
            raise _too_large("zstd", bytes_max) from error
        raise ValueError(f"zstd block: {error}") from error
    return out[:size]


def _frames(name: str, block: memoryview) -> list[Frame]:
    """The frames of an lz4 or zstd block, skippable ones left out of the list."""
    magic, walk = (LZ4_MAGIC, _lz4_frame) if name == "lz4" else (ZSTD_MAGIC, _zstd_frame)
    frames: list[Frame] = []
    at = 0
    try:
        while at < len(block) or not frames:
            start = at
            found = _little(block, at, 4)
            if found == magic:
                frame = walk(block, at)
                frames.append(frame)
                at = frame.end
            elif found & SKIPPABLE_MASK == SKIPPABLE_MAGIC:
                at += 8 + _little(block, at + 4, 4)
            else:
                raise ValueError(f"0x{found:08x} is not its magic number")
            if at > len(block):
                raise EOFError
    except EOFError:
        raise ValueError(f"{name} block: frame at byte {start} passes the end, {len(block)}") from None
    except ValueError as error:
        raise ValueError(f"{name} block: frame at byte {start}: {error}") from None
    return frames


def _little(block: memoryview, at: int, size: int) -> int:
    if at + size > len(block):
        raise EOFError
    return int.from_bytes(block[at : at + size], "little")


def _lz4_frame(block: memoryview, start: int) -> Frame:
    """Walk one frame: magic u32, FLG, BD, [content size u64], [dictionary u32], checksum u8, blocks, 0, [checksum]."""
    flags, block_size_code = _little(block, start + 4, 1), _little(block, start + 5, 1) >> 4 & 7
    at = start + 7
    stated = None
    if flags & 0x08:
        stated = _little(block, at - 1, 8)
        at += 8
    at += 4 * (flags & 1)
    block_bytes_max = 1 << 8 + 2 * block_size_code
    content_bytes_max = 0
    while size := _little(block, at, 4):
        stored, size = size >> 31, size & 0x7FFFFFFF
        content_bytes_max += size if stored else block_bytes_max
        at += 4 + size + (4 if flags & 0x10 else 0)
    at += 4 + (4 if flags & 0x04 else 0)
    if stated is not None and stated <= content_bytes_max:
        content_bytes_max = stated
    return Frame(start, at, content_bytes_max)


def _zstd_frame(block: memoryview, start: int) -> Frame:
    """Walk one frame: magic u32, descriptor u8, [window], [dictionary], [content size], blocks, [checksum u32]."""
    descriptor = _little(block, start + 4, 1)
    single_segment = descriptor >> 5 & 1
    at = start + 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    stated = None
    if stated_bytes := (single_segment, 2, 4, 8)[descriptor >> 6]:
        stated = _little(block, at, stated_bytes) + (256 if stated_bytes == 2 else 0)
        at += stated_bytes
    content_bytes_max = last = 0
    while not last:
        header = _little(block, at, 3)
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise ValueError(f"block at byte {at} is of the reserved type")
        content_bytes_max += size if kind < 2 else ZSTD_BLOCK_BYTES_MAX
        at += 3 + (1 if kind == 1 else size)
    at += 4 * (descriptor >> 2 & 1)
    if stated is not None and stated <= content_bytes_max:
        content_bytes_max = stated
    return Frame(start, at, content_bytes_max)
