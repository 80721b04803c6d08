"""Showing .log files, and the snapshots (.checkpoint) of a metadata log, which have the same form."""

import re
from pathlib import PurePath

from . import java
from .batches import CODECS, Batch, LogBytes
from .decoders import Decoder, Shown, control_record
from .legacy import show_message
from .options import Options
from .output import BrokenFileError, Output
from .records import Records, read_records

SNAPSHOT_NAME = re.compile(r"(\d{20})-(\d{10})\.checkpoint")
BOOTSTRAP_NAME = "bootstrap.checkpoint"

ShownPairs = list[tuple[Shown | None, Shown | None]]


def base_offset(path: str) -> int:
    """The offset in a file's name."""
    number = PurePath(path).name.split(".")[0]
    if not re.fullmatch(r"[+-]?\d+", number, re.ASCII) or not -(1 << 63) <= int(number) < 1 << 63:
        raise BrokenFileError(f"{path}: its name does not begin with an offset")
    return int(number)


def dump_log(path: str, options: Options, output: Output) -> dict[int, int]:
    """Show a file's batches, and its records if asked; returns offsets that the next one's does not follow."""
    output.text(_first_line(path))
    jumps: dict[int, int] = {}
    with LogBytes(path) as log:
        end = log.size if options.reads_all else min(log.size, options.bytes_max)
        position = 0
        previous = -1
        for position, size, _, magic in log.spans(0, end):
            if magic < 2:
                _show_legacy(log, position, options, output)
                position += size
                continue
            batch = log.batch(position)
            _show_batch(batch, log, output)
            if options.shows_records:
                previous = _show_records(log, batch, options, output, jumps, previous)
            position += size
        if position < end and options.reads_all:
            output.text(f"Found {end - position} invalid bytes at the end of {PurePath(path).name}\n")
            output.item("trailing", position=position, size=end - position)
            output.problem_found = True
    return jumps


def _first_line(path: str) -> str:
    name = PurePath(path).name
    if name.endswith(".log"):
        return f"Log starting offset: {base_offset(path)}\n"
    if name == BOOTSTRAP_NAME:
        return "KRaft bootstrap snapshot\n"
    if found := SNAPSHOT_NAME.match(name):
        return f"Snapshot end offset: {int(found[1])}, epoch: {int(found[2])}\n"
    raise BrokenFileError(f"{path}: not the name of a snapshot, OFFSET-EPOCH.checkpoint")


def _show_legacy(log: LogBytes, position: int, options: Options, output: Output) -> None:
    if not show_message(log, position, output):
        output.problem_found = True
    if options.shows_records:
        raise BrokenFileError(f"{log.name}: batch at {position}: of its kind, before Kafka 0.11, no records are read")


def _show_batch(batch: Batch, log: LogBytes, output: Output) -> None:
    if not batch.is_valid:
        output.problem_found = True
    codec = CODECS[batch.codec] if batch.codec < len(CODECS) else None
    if output.as_json:
        output.item(
            "batch",
            baseOffset=batch.base_offset,
            lastOffset=batch.last_offset,
            count=batch.record_count,
            baseSequence=batch.base_sequence,
            lastSequence=batch.last_sequence,
            producerId=batch.producer_id,
            producerEpoch=batch.producer_epoch,
            partitionLeaderEpoch=batch.leader_epoch,
            isTransactional=batch.is_transactional,
            isControl=batch.is_control,
            deleteHorizonMs=batch.delete_horizon_ms,
            position=batch.position,
            timestampType=batch.timestamp_type,
            maxTimestamp=batch.max_timestamp,
            size=batch.size,
            magic=batch.magic,
            codec=codec,
            crc=batch.crc,
            isValid=batch.is_valid,
        )
    output.text(
        f"baseOffset: {batch.base_offset} lastOffset: {batch.last_offset} count: {batch.record_count}"
        f" baseSequence: {batch.base_sequence} lastSequence: {batch.last_sequence}"
        f" producerId: {batch.producer_id} producerEpoch: {batch.producer_epoch}"
        f" partitionLeaderEpoch: {batch.leader_epoch} isTransactional: {java.boolean(batch.is_transactional)}"
        f" isControl: {java.boolean(batch.is_control)}"
        f" deleteHorizonMs: {java.optional_long(batch.delete_horizon_ms)}"
    )
    if codec is None:
        # Kafka gives up here, in the middle of the line.
        raise BrokenFileError(f"{log.name}: batch at {batch.position}: codec {batch.codec} is unknown")
    output.text(
        f" position: {batch.position} {batch.timestamp_type}: {batch.max_timestamp} size: {batch.size}"
        f" magic: {batch.magic} compresscodec: {codec} crc: {batch.crc} isvalid: {java.boolean(batch.is_valid)}\n"
    )


def _show_records(
    log: LogBytes, batch: Batch, options: Options, output: Output, jumps: dict[int, int], previous: int
) -> int:
    records = read_records(log, batch, with_data=options.shows_data or batch.is_control)
    for offset in records.offsets:
        if offset != previous + 1:
            jumps[previous] = offset
        previous = offset
    try:
        if output.as_json:
            _items(batch, records, options, output)
        else:
            _lines(batch, records, options, output)
    except BrokenFileError as error:
        raise BrokenFileError(f"{log.name}: batch at {batch.position}: {error}") from error
    if records.problem:
        raise BrokenFileError(records.problem)
    return previous


def _sequences(batch: Batch, records: Records) -> list[int]:
    if batch.base_sequence < 0:
        return [-1] * len(records.offsets)
    return [java.sequence_after(batch.base_sequence, offset - batch.base_offset) for offset in records.offsets]


def _lines(batch: Batch, records: Records, options: Options, output: Output) -> None:
    """The text of a batch's records: whole columns at a time, since this is where a dump spends its time."""
    count = len(records.offsets)
    heads = [""] * count
    if not options.skips_metadata:
        kind = batch.timestamp_type
        heads = [
            f"| offset: {offset} {kind}: {timestamp} keySize: {key_size} valueSize: {value_size}"
            f" sequence: {sequence} headerKeys: [{_header_names(headers) if headers else ''}]"
            for offset, timestamp, key_size, value_size, sequence, headers in zip(
                records.offsets, records.timestamps, records.key_sizes, records.value_sizes,
                _sequences(batch, records), records.headers, strict=True,
            )
        ]  # fmt: skip
    if batch.is_control:
        for head, key, value in zip(heads, records.keys, records.values, strict=True):
            output.text(head)
            if not options.skips_metadata:
                output.text(control_record(key, value).text)
            output.text("\n")
    elif not options.shows_data:
        output.text("".join(f"{head}\n" for head in heads))
    else:
        lead = "| " if options.skips_metadata else " "
        pieces: list[str] = []
        try:
            for head, offset, key, value in zip(heads, records.offsets, records.keys, records.values, strict=True):
                pieces.append(head)
                pieces.append(_contents(options.decoder, lead, offset, key, value))
        finally:
            output.text("".join(pieces))


def _contents(decoder: Decoder | None, lead: str, offset: int, key: bytes | None, value: bytes | None) -> str:
    if decoder is None:
        shown_key = None if key is None else java.text(key)
        shown_value = None if value is None else java.text(value)
    else:
        first, second = decoder(offset, key, value)
        shown_key, shown_value = first and first.text, second and second.text
    if shown_key is None:
        return "\n" if shown_value is None else f"{lead}payload: {shown_value}\n"
    return f"{lead}key: {shown_key}\n" if shown_value is None else f"{lead}key: {shown_key} payload: {shown_value}\n"


def _header_names(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    return ",".join(java.text(name.encode("utf-8", "surrogateescape")) for name, _ in headers)


def _items(batch: Batch, records: Records, options: Options, output: Output) -> None:
    sequences = _sequences(batch, records)
    for i, (key, value) in enumerate(zip(records.keys, records.values, strict=True)):
        offset = records.offsets[i]
        fields: dict[str, object] = {}
        if not options.skips_metadata:
            fields = {
                "offset": offset,
                "timestampType": batch.timestamp_type,
                "timestamp": records.timestamps[i],
                "keySize": records.key_sizes[i],
                "valueSize": records.value_sizes[i],
                "sequence": sequences[i],
                "headers": [[name.encode("utf-8", "surrogateescape"), data] for name, data in records.headers[i]],
            }
            if batch.is_control:
                fields |= control_record(key, value).form
        if options.shows_data and not batch.is_control:
            shown_key: object = key
            shown_value: object = value
            if options.decoder is not None:
                first, second = options.decoder(offset, key, value)
                shown_key, shown_value = first and first.form, second and second.form
            fields |= {"key": shown_key, "value": shown_value}
        output.item("record", **fields)
