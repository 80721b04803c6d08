"""pylog's engine beside other stores: ``python -m benchmarks.bench_engine``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

from benchmarks import harness
from benchmarks.harness import Bar, Comparison, Contender
from benchmarks.peers import Lmdb, Peer, PlainFile, PlainFileLargeBuffer, SqliteWal
from benchmarks.store_rows import consuming, producing


def peer_classes() -> list[type[Peer]]:
    """The peers whose libraries are installed."""
    peers: list[type[Peer]] = [PlainFile]
    if _installed("lmdb"):
        peers.append(Lmdb)
    if _installed("confluent_kafka"):
        from benchmarks.confluent_peer import ConfluentMock

        peers.append(ConfluentMock)
    return [*peers, SqliteWal]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def comparisons(*, with_pylog: bool) -> list[Comparison]:
    """All comparisons; without pylog, those four that the peers alone can run, and no bars."""
    peers = peer_classes()
    send: list[Contender] = []
    send_many: list[Contender] = []
    consume: list[Contender] = []
    iterate: list[Contender] = []
    more: list[Comparison] = []
    if with_pylog:
        from benchmarks import bulk_rows, latency_rows
        from benchmarks.pylog_peer import Pylog

        send += [producing(Pylog, Pylog.produce_one_by_one, "pylog send")]
        send_many += [
            producing(Pylog, Pylog.produce_batches, "pylog send_many, batches"),
            producing(Pylog, Pylog.produce_whole_list, "pylog send_many, whole list"),
        ]
        consume += [
            consuming(Pylog, Pylog.consume, "pylog scan, tolist"),
            consuming(Pylog, Pylog.consume_by_poll_columns, "pylog poll_columns, tolist"),
        ]
        iterate += [
            consuming(Pylog, Pylog.iterate, "pylog read"),
            consuming(Pylog, Pylog.iterate_by_poll, "pylog poll"),
            consuming(Pylog, Pylog.iterate_consumer, "pylog for record in consumer"),
        ]
        more = [*bulk_rows.comparisons(), *latency_rows.comparisons()]

    writers: list[type[Peer]] = [*peers, PlainFileLargeBuffer]
    send += [producing(peer, peer.produce_one_by_one, peer.name) for peer in writers]
    send_many += [producing(peer, peer.produce_batches, peer.name) for peer in peers]
    consume += [consuming(peer, peer.consume, peer.name) for peer in peers]
    if Lmdb in peers:
        consume += [consuming(Lmdb, Lmdb.consume_pairs, "LMDB, keys and values")]
    iterate += [consuming(peer, peer.iterate, peer.name) for peer in peers]
    return [
        Comparison(
            key="send",
            title="one call for each record, then flush",
            contenders=send,
            bars=_bars(
                send,
                Bar(subject="pylog send", reference="plain file", required=1, aimed=2),
                Bar(subject="pylog send", reference="plain file, 1 MiB buffer", required=1, aimed=2),
                Bar(subject="pylog send", reference="LMDB", aimed=4),
                Bar(subject="pylog send", reference="confluent-kafka, mock broker", aimed=2),
            ),
        ),
        Comparison(
            key="send-many",
            title="a list of bytes for each batch, then flush",
            contenders=send_many,
            bars=_bars(
                send_many,
                Bar(subject="pylog send_many, batches", reference="plain file", required=2, aimed=4),
                Bar(subject="pylog send_many, whole list", reference="plain file"),
            ),
        ),
        Comparison(
            key="consume",
            title="back as lists of bytes",
            contenders=consume,
            bars=_bars(
                consume,
                Bar(subject="pylog scan, tolist", reference="LMDB", required=1, aimed=3),
                Bar(subject="pylog scan, tolist", reference="LMDB, keys and values", required=1, aimed=3),
                Bar(subject="pylog poll_columns, tolist", reference="LMDB", required=1, aimed=3),
            ),
        ),
        Comparison(
            key="iterate",
            title="record by record, touching offset, key and value",
            contenders=iterate,
            bars=_bars(
                iterate,
                Bar(subject="pylog read", reference="confluent-kafka, mock broker", required=2, aimed=5),
                Bar(subject="pylog poll", reference="confluent-kafka, mock broker", required=2, aimed=5),
            ),
        ),
        *more,
    ]


def _bars(contenders: Sequence[Contender], *bars: Bar) -> list[Bar]:
    """The bars, or none when their subjects do not take part."""
    names = {contender.name for contender in contenders}
    return [bar for bar in bars if bar.subject in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, print; the exit status."""
    parser = harness.argument_parser(__doc__ or "")
    parser.add_argument("--peers-only", action="store_true", help="leave pylog out, and with it every bar")
    options = parser.parse_args(arguments)
    if not options.peers_only:
        try:
            import pylog  # noqa: F401 - a clear word now instead of a traceback later
        except ImportError as error:
            parser.error(f"pylog cannot be imported ({error}); install it, or pass --peers-only")
    notes = [f"{library} is not installed: its rows are left out" for library in _missing_libraries()]
    return harness.main(comparisons(with_pylog=not options.peers_only), options, notes=notes)


def _missing_libraries() -> list[str]:
    return [module for module in ("lmdb", "confluent_kafka") if not _installed(module)]


if __name__ == "__main__":
    sys.exit(main())
