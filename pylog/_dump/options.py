"""The command line of `pylog dump`: kafka-dump-log's flags, and ours."""

import argparse
from typing import NamedTuple, NoReturn

from .decoders import Decoder, function_decoder, load_function, offsets_decoder, transaction_decoder

BYTES_MAX = (1 << 31) - 1
MESSAGE_BYTES_MAX = 5 << 20
# The default of Kafka's own option, so that scripts which state it go on working.
STRING_DECODER = "org.apache.kafka.tools.api.StringDecoder"

NOT_OURS = {
    "cluster-metadata-decoder": "records of a KRaft metadata log",
    "remote-log-metadata-decoder": "records of tiered storage",
    "share-group-state-decoder": "records of share groups",
}

DESCRIPTION = "Show what is in the files of a log, byte for byte as Kafka's kafka-dump-log does."

EPILOG = """\
Exit code: 0 nothing wrong, 1 a problem was found (an invalid batch, an index that does not fit its log, ...), 2 usage.
Offsets that do not follow each other are reported on stderr, but are no problem: compaction and rolling make them.

--json prints one object per line, each with "file" and "type":
  batch      baseOffset, lastOffset, count, ..., isValid; as in the text, with codec for compresscodec (null: unknown),
             timestampType and maxTimestamp; deleteHorizonMs is null where there is none
  message    the same of a batch that was written before Kafka 0.11: offset, position, ..., isValid
  record     offset, timestampType, timestamp, keySize, valueSize, sequence, headers [[key, value], ...]; with data:
             key, value; of a control record endTxnMarker, coordinatorEpoch, or what else it says
  trailing   position, size: bytes at the end that are no batch
  index      offset, position            timeindex  timestamp, offset       empty, sane  nothing else
  aborted    version, producerId, firstOffset, lastOffset, lastStableOffset
  producer   producerId, producerEpoch, coordinatorEpoch, currentTxnFirstOffset, lastTimestamp, lastBatch
  checkpoint topic, partition, offset    epoch  epoch, startOffset          setting  key, value       cleanShutdown
  problem    message; it goes to stderr too
Keys, values and header values are strings where they are UTF-8, else {"base64": "..."}; null is null. A decoder's
result takes their place, as an object for the decoders of Kafka's topics.

Examples:
  pylog dump --files data/orders-0/00000000000000000000.log --print-data-log
  pylog dump data/orders-0                                    all files of a partition
  pylog dump --json --print-data-log data/orders-0/00000000000000000000.log
  pylog dump --offsets-decoder data/__consumer_offsets-1/00000000000000000000.log
  pylog dump --value-decoder-class mymodule:parse data/orders-0/00000000000000000000.log
"""


class Options(NamedTuple):
    """What was asked for; `decoder` None means text."""

    files: list[str]
    shows_data: bool = False
    shows_records: bool = False
    skips_metadata: bool = False
    verifies_only: bool = False
    checks_sanity: bool = False
    bytes_max: int = BYTES_MAX
    message_bytes_max: int = MESSAGE_BYTES_MAX
    decoder: Decoder | None = None
    as_json: bool = False

    @property
    def reads_all(self) -> bool:
        """No --max-bytes: only then trailing bytes are told of."""
        return self.bytes_max == BYTES_MAX


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def _size(text: str) -> int:
    number = int(text)
    if not 0 <= number <= BYTES_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {BYTES_MAX}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "pylog dump",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="FILE", help="file or partition directory; may hold commas")
    add("--files", metavar="FILE,FILE...", help="files, separated by commas")
    add("--print-data-log", action="store_true", help="show records with keys and values; any decoder implies it")
    add("--deep-iteration", action="store_true", help="show records, without keys and values")
    add("--skip-record-metadata", action="store_true", help="show only keys and values of records")
    add("--verify-index-only", action="store_true", help="hold indexes against the log, show no entries")
    add("--index-sanity-check", action="store_true", help="make only the check that a broker makes at its start")
    add("--max-bytes", type=_size, default=BYTES_MAX, metavar="BYTES", help="read only so much of each .log")
    add(
        "--max-message-size",
        type=_size,
        default=MESSAGE_BYTES_MAX,
        metavar="BYTES",
        help="largest batch that an index may point at (%(default)s)",
    )
    for side in ("key", "value"):
        add(
            f"--{side}-decoder-class",
            nargs="?",
            const=STRING_DECODER,
            metavar="MODULE:FUNCTION",
            help=f"show what str() makes of the function's result for the {side}'s bytes",
        )
    add("--offsets-decoder", action="store_true", help="records are those of __consumer_offsets")
    add("--transaction-log-decoder", action="store_true", help="records are those of __transaction_state")
    for name, what in NOT_OURS.items():
        add(f"--{name}", action="store_true", help=f"not supported: {what}")
    add("--json", action="store_true", help="one JSON object per line, see below")
    return parser


def parse_options(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        SystemExit: with 0 after --help, with 2 and a sentence on stderr where the arguments make no sense.
    """
    parser = _parser()
    found = parser.parse_args(arguments)
    for name, what in NOT_OURS.items():
        if getattr(found, name.replace("-", "_")):
            parser.error(f"--{name} is not supported: pylog does not read {what}")
    files = [file for file in (found.files or "").split(",") if file] + found.paths
    if not files:
        parser.error("no files: give --files FILE,FILE... or FILE arguments")
    try:
        decoder = _decoder(found)
    except ValueError as error:
        parser.error(str(error))
    has_decoder = decoder is not None or found.key_decoder_class or found.value_decoder_class
    shows_data = bool(found.print_data_log or has_decoder)
    return Options(
        files=files,
        shows_data=shows_data,
        shows_records=shows_data or found.deep_iteration,
        skips_metadata=found.skip_record_metadata,
        verifies_only=found.verify_index_only,
        checks_sanity=found.index_sanity_check,
        bytes_max=found.max_bytes,
        message_bytes_max=found.max_message_size,
        decoder=decoder,
        as_json=found.json,
    )


def _decoder(found: argparse.Namespace) -> Decoder | None:
    if found.offsets_decoder:
        return offsets_decoder
    if found.transaction_log_decoder:
        return transaction_decoder
    names = (found.key_decoder_class, found.value_decoder_class)
    functions = [None if name in (None, STRING_DECODER) else load_function(name) for name in names]
    return function_decoder(*functions) if any(functions) else None
