"""The records of one batch as columns: by the engine where it can, else one by one as far as they make sense.

The engine takes a block whole or not at all; a dump has to show what stands before the damage, and records that only
the engine finds fault with. `read_leniently` is for those blocks alone.
"""

from typing import Any, NamedTuple

from pylog import _compression, _native
from pylog._errors import CorruptRecordError

from . import java
from .batches import HEADER, Batch, LogBytes
from .output import BrokenFileError

BLOCK_BYTES_MAX = (1 << 31) - 1
APPEND_TIME = 0x08

Header = tuple[str, bytes | None]


class Records(NamedTuple):
    """Equally long columns; `problem` says why they end before the batch does."""

    offsets: list[int]
    timestamps: list[int]
    key_sizes: list[int]
    value_sizes: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[tuple[Header, ...]]
    problem: str | None


def read_records(log: LogBytes, batch: Batch, *, with_data: bool) -> Records:
    """Decode a batch; keys and values are lists of None unless `with_data`.

    Raises:
        BrokenFileError: the block cannot be decompressed, or ends before it starts.
    """
    where = f"{log.name}: batch at {batch.position}"
    if batch.size < HEADER.size:
        raise BrokenFileError(f"{where}: {batch.size} bytes are too few for its header")
    if batch.record_count == 0:
        return Records([], [], [], [], [], [], [], None)
    if batch.record_count < 0:
        raise BrokenFileError(f"{where}: record count {batch.record_count}")
    packed = log.data[batch.position + HEADER.size : batch.position + batch.size]
    log.check_whole(batch.position)
    try:
        block = _compression.decompress(batch.codec, packed, bytes_max=BLOCK_BYTES_MAX)
    except ValueError as error:
        raise BrokenFileError(f"{where}: {error}") from error
    header = _native.BatchHeader(
        batch.base_offset, batch.size, batch.leader_epoch, batch.magic, batch.crc, batch.attributes,
        batch.last_offset_delta, batch.base_timestamp, batch.max_timestamp, batch.producer_id, batch.producer_epoch,
        batch.base_sequence, batch.record_count, None,
    )  # fmt: skip
    try:
        decoded = _native.decode_block(header, block)
    except CorruptRecordError:
        return _read_leniently(batch, bytes(block), where)
    count = batch.record_count
    nothing: list[bytes | None] = [None] * count
    return Records(
        decoded.offset.tolist(),
        # Stated here once more, because the engine takes no append time before 1970.
        [batch.max_timestamp] * count if batch.attributes & APPEND_TIME else decoded.timestamp.tolist(),
        decoded.key_bytes.tolist(),
        decoded.value_bytes.tolist(),
        _native.bytes_list(decoded.data, decoded.key_at, decoded.key_bytes) if with_data else nothing,
        _native.bytes_list(decoded.data, decoded.value_at, decoded.value_bytes) if with_data else nothing,
        _native.headers_list(decoded.data, decoded.headers_at),
        None,
    )


class _Reader:
    """Varints and fields of one block."""

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.at = 0

    def varint(self, bits: int) -> int:
        """A zig-zag number of 32 or 64 bits."""
        raw = shift = 0
        while True:
            byte = self.take(1)[0]
            raw |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > bits:
                raise ValueError("a number that does not end")
        raw &= (1 << bits) - 1
        return raw >> 1 ^ -(raw & 1)

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if self.at + size > len(self.block):
            raise ValueError("it passes the end of the batch")
        self.at += size
        return self.block[self.at - size : self.at]

    def field(self) -> tuple[int, bytes | None]:
        """A size and that many bytes; any negative size is null."""
        size = self.varint(32)
        return (-1, None) if size < 0 else (size, self.take(size))


def _read_leniently(batch: Batch, block: bytes, where: str) -> Records:
    """Record by record, until one makes no sense; of a compressed block then none, as Kafka reads them whole."""
    records = Records([], [], [], [], [], [], [], None)
    reader = _Reader(block)
    problem = None
    for number in range(batch.record_count):
        try:
            row = _read_record(batch, reader)
            if number == batch.record_count - 1 and reader.at < len(block):
                raise ValueError("bytes are left behind the last record")
        except ValueError as error:
            problem = f"{where}: record {number} of {batch.record_count}: {error}"
            break
        columns: tuple[Any, ...] = records[:-1]
        for column, cell in zip(columns, row, strict=True):
            column.append(cell)
    if problem and batch.codec:
        records = Records([], [], [], [], [], [], [], None)
    return records._replace(problem=problem)


def _read_record(batch: Batch, reader: _Reader) -> tuple[object, ...]:
    size = reader.varint(32)
    end = reader.at + size
    if end > len(reader.block) or size < 0:
        raise ValueError(f"{size} bytes, but {len(reader.block) - reader.at} are left")
    reader.take(1)
    timestamp = java.int64(batch.base_timestamp + reader.varint(64))
    if batch.attributes & APPEND_TIME:
        timestamp = batch.max_timestamp
    offset = java.int64(batch.base_offset + reader.varint(32))
    key_size, key = reader.field()
    value_size, value = reader.field()
    headers = []
    header_count = reader.varint(32)
    if not 0 <= header_count <= len(reader.block) - reader.at:
        raise ValueError(f"header count {header_count}")
    for _ in range(header_count):
        name = reader.field()[1]
        if name is None:
            raise ValueError("a header without a name")
        headers.append((name.decode("utf-8", "surrogateescape"), reader.field()[1]))
    if reader.at != end:
        raise ValueError(f"{size} bytes stated, {reader.at - end + size} used")
    return offset, timestamp, key_size, value_size, key, value, tuple(headers)
