"""The producer: records are encoded into their partition's open batch as they are sent, and appended batch by batch.

A batch is begun by the first record, and appended when the next record does not fit, when it has waited linger_ms, when
somebody asks for its result, and at flush and close.  Whoever finds it full appends it himself, so a producer that is
faster than the disk waits for the disk, and memory stays bounded without a queue.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from . import _native
from ._closing import Closing
from ._column_input import bytes_column, pick_column, timestamp_column
from ._compression import CODECS, check_codec, compress
from ._config import ProducerConfig, producer_config
from ._encoder import ColumnEncoder, now_ms, set_batch_length
from ._errors import ClosedError, MessageSizeTooLargeError, PylogError, UnknownTopicOrPartitionError
from ._future import Batch, Future, ManyFuture
from ._routing import ALL_ROWS, BATCH_BYTES_MIN, GATHER_FLUSHES_MAX, Items, Lane, Route, Rows
from ._serializers import resolve_serializer
from ._types import Column, Headers

if TYPE_CHECKING:
    from ._log import Log
    from ._topic import Topic

# What a batch of one record needs beside its key and value, headers aside: more than enough.
ROOM_BYTES = 4096


class Producer(Closing):
    """Sends records to topics.  Thread-safe.  Made by Log.producer(); options are api names, see ProducerConfig."""

    def __init__(self, log: Log, **config: Unpack[ProducerConfig]) -> None:
        self._config = producer_config(config)
        self._log = log
        self._lock = threading.RLock()
        self._routes: dict[str, Route] = {}
        self._quick: dict[str, _native.TopicSender] = {}
        self._generation = log.generation
        self._open_lanes: dict[int, Lane] = {}
        self._unflushed_lanes: dict[int, Lane] = {}
        self._failed: list[Batch] = []
        self._ticking = False
        self._closed: type[PylogError] | None = None
        self._acks = self._config["acks"]
        self._partitioner = self._config["partitioner"]
        self._key_serializer = resolve_serializer(self._config["key_serializer"], option="key_serializer")
        self._value_serializer = resolve_serializer(self._config["value_serializer"], option="value_serializer")
        self._codec = CODECS[self._config["compression_type"] or "none"]
        check_codec(self._codec)
        self._plain = (
            self._key_serializer is None and self._value_serializer is None and not callable(self._partitioner)
        )
        log.add_handle(self)

    # -- sending

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Future:
        """Send one record; its place is known through the future that is returned.

        value, key: bytes-like or None, or what the serializers take; headers: (str, bytes or None) pairs; timestamp_ms:
        milliseconds since 1970, None: now.  Raises TypeError for other types, UnknownTopicOrPartitionError,
        InvalidTopicError, MessageSizeTooLargeError, ClosedError, ForkError.
        """
        sender = self._quick.get(topic)
        if sender is not None:
            future = sender.send(value, key, headers, partition, timestamp_ms)
            if future is not None:
                return future  # type: ignore[return-value]  # the sender makes what Route told it to
        return self._send_slow(topic, value, key, headers, partition, timestamp_ms)

    def _send_slow(
        self, topic: str, value: Any, key: Any, headers: Headers | None, partition: int | None, timestamp: int | None
    ) -> Future:
        _native.check_fork()
        if key is not None and self._key_serializer is not None:
            key = self._key_serializer(key)
        if value is not None and self._value_serializer is not None:
            value = self._value_serializer(value)
        with self._lock:
            route = self._route(topic)
            if key is None and route.topic.compacted:
                raise ValueError(f"topic {topic} is compacted: a record needs a key")
            lane = route.choose(key, value, partition)
            builder = lane.builder
            while (batch := builder.owner) is not None:  # again if a callback has begun a batch meanwhile
                future = builder.append_future(Future, batch, value, key, headers, timestamp)
                if future is not None:
                    return future
                self._append_full(lane)
            batch = Batch(self, lane)
            try:
                future = builder.append_future(Future, batch, value, key, headers, timestamp)
                assert future is not None  # an empty batch takes any record
                if builder.size_bytes > lane.topic.batch_bytes_max:
                    self._check_size(lane)
                self._begin(lane, batch)
            except BaseException:
                if builder.owner is None:
                    builder.clear()
                raise
            return future

    def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        *,
        partition: int | None = None,
        timestamps_ms: Iterable[int] | None = None,
        headers: Headers | None = None,
    ) -> ManyFuture:
        """Send many records: the same as send for each, several times as fast.

        keys and timestamps_ms have as many items as values; headers go with every record.  Nothing is sent if an
        item is of the wrong type or too large.  Without keys, records go to the partitions in turn.
        """
        _native.check_fork()
        value_list = self._serialized(values, self._value_serializer)
        key_list = None if keys is None else self._serialized(keys, self._key_serializer)
        timestamps = None if timestamps_ms is None else _as_list(timestamps_ms)
        for name, column in (("keys", key_list), ("timestamps_ms", timestamps)):
            if column is not None and len(column) != len(value_list):
                raise ValueError(f"{name} has {len(column)} items, values has {len(value_list)}")
        largest_bytes = _native.check_values(value_list, "value")
        if key_list is not None:
            largest_bytes += _native.check_values(key_list, "key")
        if timestamps is not None:
            timestamp_column(array("q", timestamps))
        with self._lock:
            route = self._route(topic)
            if largest_bytes > route.topic.batch_bytes_max - ROOM_BYTES and not self._codec_for(route.topic):
                _check_each_size(route.topic, value_list, key_list, headers)
            if route.topic.compacted and (key_list is None or None in key_list):
                raise ValueError(f"topic {topic} is compacted: a record needs a key")
            pieces: list[tuple[Batch, int, int]] = []
            for lane, rows in route.spread(value_list, key_list, partition):
                self._extend(
                    lane,
                    _pick(value_list, rows),
                    None if key_list is None else _pick(key_list, rows),
                    None if timestamps is None else _pick(timestamps, rows),
                    headers,
                    pieces,
                )
        return ManyFuture(pieces)

    def send_columns(
        self,
        topic: str,
        values: Column,
        keys: Column | None = None,
        *,
        timestamps_ms: Column | None = None,
        partition: int | None = None,
    ) -> ManyFuture:
        """Send columns without making Python objects of their values.

        values, keys: a numpy array of fixed width (S, V or a structured dtype, or 2-dimensional uint8, a row a
        record), or anything Arrow of binary or string type, nulls allowed.  timestamps_ms: int64 milliseconds,
        datetime64, or Arrow timestamps.  Without `partition`, a topic of several partitions gets its records in turn,
        or by key.
        """
        _native.check_fork()
        value_column = bytes_column("values", values)
        key_column = None if keys is None else bytes_column("keys", keys)
        timestamps = None if timestamps_ms is None else timestamp_column(timestamps_ms)
        for name, length in (
            ("keys", None if key_column is None else len(key_column[1])),
            ("timestamps_ms", None if timestamps is None else len(timestamps)),
        ):
            if length is not None and length != len(value_column[1]):
                raise ValueError(f"{name} has {length} items, values has {len(value_column[1])}")
        with self._lock:
            route = self._route(topic)
            if route.topic.compacted and (key_column is None or bool((key_column[2] < 0).any())):
                raise ValueError(f"topic {topic} is compacted: a record needs a key")
            pieces: list[tuple[Batch, int, int]] = []
            for lane, rows in route.spread_columns(value_column, key_column, partition):
                self._append_columns(
                    lane,
                    pick_column(value_column, rows),
                    None if key_column is None else pick_column(key_column, rows),
                    None if timestamps is None else np.ascontiguousarray(timestamps[rows]),
                    pieces,
                )
        return ManyFuture(pieces)

    # -- flushing

    def flush(self, timeout: float | None = None) -> None:  # noqa: ARG002 - Kafka's signature, see below
        """Append all that is buffered and wait until it is acknowledged as acks says.

        Raises the first failure that no get, await or callback has seen.  timeout (seconds) is there for Kafka's
        callers: the disk is waited for whatever it says.
        """
        _native.check_fork()
        self._check_open()
        self.push_all()
        self.raise_unseen()

    def push_all(self) -> None:
        """Append all open batches; failures are kept for their futures and for flush."""
        with self._lock:
            for lane in list(self._open_lanes.values()):
                self._append(lane)
        self._flush_lanes()

    def push(self, batch: Batch, seconds: float, *, gather: bool = True) -> bool:
        """See this batch acknowledged, or failed: append it unless that has begun, and flush it if acks asks for it.

        gather: wait for the threads that came along the last time, who may see to it then.  False: for so long (-1:
        without end) other threads were at it, and the batch's turn has not come.
        """
        lane = batch.lane
        turn = lane.turn if self._acks == "all" else self._lock
        try:
            if not turn.acquire(timeout=seconds):
                return False
            if gather and batch.waiting < lane.company and not batch.done:
                turn.release()
                lane.gather(batch)
                if batch.done:
                    return True
                if not turn.acquire(timeout=seconds):
                    return False
            if self._acks != "all":
                self._append(lane, batch)
            elif not batch.done:  # meanwhile, other threads' records gather in the next batch
                self._flush(lane, batch)
                lane.company = batch.waiting
                lane.patience = 1 if gather else GATHER_FLUSHES_MAX
        finally:  # Ctrl-C may come between any two calls; only the lock knows whether it was had
            try:  # noqa: SIM105 - suppress would be such a call
                turn.release()
            except RuntimeError:  # it was not, or is back already
                pass
        return True

    def check_not_forked(self) -> None:
        """Raise ForkError in a forked child: what is pending is the parent's to send."""
        _native.check_fork()
        if self._closed not in (None, ClosedError):
            self._check_open()

    def close(self) -> None:
        """Flush, then close.  Raises what flush raises, but is closed then."""
        _native.check_fork()
        with self._lock:
            if self._closed not in (None, ClosedError):
                return
            self._closed = ClosedError  # before the last push: what another thread sends now is refused, not forgotten
            self._quick.clear()
            self._routes.clear()
        self.push_all()
        self._log.remove_handle(self)  # not where Ctrl-C has ended the push: the log's close pushes again
        self.raise_unseen()

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: nothing here may be used, nothing be sent twice.  Called with no other thread alive."""
        self._quick.clear()
        self._routes.clear()
        self._closed = error
        self._lock = threading.RLock()

    def partitions_for(self, topic: str) -> set[int]:
        """The numbers of the topic's partitions."""
        _native.check_fork()
        with self._lock:
            return {lane.tp.partition for lane in self._route(topic).lanes}

    def __repr__(self) -> str:
        return f"<Producer of {self._log.url}, acks={self._acks!r}{', closed' if self._closed else ''}>"

    # -- inside

    def _check_open(self) -> None:
        if self._closed is not None:
            raise self._closed("the producer is closed" if self._closed is ClosedError else self._log.fork_message)
        self._log.check_open()

    def _route(self, topic: str) -> Route:
        self._check_open()
        if self._generation != self._log.generation:
            self._forget_changed_topics()
        route = self._routes.get(topic)
        if route is None:
            route = Route(self._log.topic_for_sending(topic), self._partitioner, self._config["batch_size"])
            self._routes[topic] = route
            if self._plain and self._partitioner != "random":
                self._quick[topic] = route.sender
        return route

    def _forget_changed_topics(self) -> None:
        self._generation = self._log.generation
        for name, route in list(self._routes.items()):
            if self._log.topics.get(name) is not route.topic or route.outdated:
                for lane in route.lanes:
                    self._append_full(lane)
                del self._routes[name]
                self._quick.pop(name, None)

    def _serialized(self, items: Iterable[Any], serializer: Any) -> Items:
        if serializer is None:
            return _as_list(items)
        return [None if item is None else serializer(item) for item in items]

    def _extend(
        self,
        lane: Lane,
        values: Items,
        keys: Items | None,
        timestamps: Items | None,
        headers: Headers | None,
        pieces: list[tuple[Batch, int, int]],
    ) -> None:
        builder, at = lane.builder, 0
        while at < len(values):
            batch, begun = builder.owner, False
            if batch is None:
                batch, begun = Batch(self, lane), True
            try:
                end, index = builder.extend(values, keys, timestamps, headers, at)
                if begun:
                    self._check_size(lane)
                    self._begin(lane, batch)
            except BaseException:
                if builder.owner is None:
                    builder.clear()
                raise
            if end > at:
                pieces.append((batch, index, end - at))
            at = end
            if at < len(values):
                self._append_full(lane)

    def _append_columns(
        self, lane: Lane, values: Any, keys: Any, timestamps: Any, pieces: list[tuple[Batch, int, int]]
    ) -> None:
        if lane.builder.owner is not None:
            self._append_full(lane)  # records sent before these come before them
        encoder = ColumnEncoder(lane.builder.bytes_max, values, keys, timestamps, now_ms())
        at = 0
        while at < encoder.count:
            buffer, taken = encoder.encode(at)
            batch = Batch(self, lane)
            self._write(lane, batch, buffer)
            pieces.append((batch, 0, taken))
            at += taken
        self._settle_soon()

    def _check_size(self, lane: Lane) -> None:
        """Refuse a record that is too large by itself; compressed, it may yet fit."""
        if not self._codec_for(lane.topic):
            _check_size(lane.topic, lane.builder)

    def _begin(self, lane: Lane, batch: Batch) -> None:
        """The lane's builder holds the first record of `batch`: see that it is sent soon, open it for the quick way."""
        if self._acks == 0:
            batch.done = True
        self._open_lanes[id(lane)] = lane
        crowded = len(self._open_lanes) * self._config["batch_size"] > self._config["buffer_memory"]
        if not crowded and not self._ticking:
            self._log.background.after(self._config["linger_ms"] / 1000, self._tick)
            self._ticking = True
        lane.builder.owner = batch  # from here on other threads append to it
        if crowded:
            for other in list(self._open_lanes.values()):
                self._append_full(other)

    def _tick(self) -> None:
        with self._lock:
            self._ticking = False
            if self._closed is not None:
                return
        self.push_all()

    def _codec_for(self, topic: Topic) -> int:
        return self._codec if topic.codec is None else topic.codec

    def _append(self, lane: Lane, only: Batch | None = None) -> None:
        """Give the lane's open batch to the log.  Caller holds the lock.  Failures go to the batch."""
        batch = lane.builder.owner
        if batch is None or not (only is None or batch is only):
            return
        try:
            buffer = lane.builder.finish()
            self._open_lanes.pop(id(lane), None)
            self._write(lane, batch, buffer)
        except BaseException as error:  # Ctrl-C can come after any call: what became of the batch?
            if batch.base_offset >= 0:
                if not batch.done and batch not in lane.unflushed:
                    self._appended(lane, batch, rolled=False)
            elif not batch.done and lane.builder.owner is not batch:
                lost = PylogError(f"{lane.tp.topic}-{lane.tp.partition}: {error!r} came before the batch was appended")
                lost.__cause__ = error
                self._fail(batch, lost)
            raise

    def _append_full(self, lane: Lane) -> None:
        """The same where nobody waits for the batch: what acks="all" asks for is then done in the background."""
        self._append(lane)
        self._settle_soon()

    def _write(self, lane: Lane, batch: Batch, buffer: Any) -> None:
        try:
            codec = self._codec_for(lane.topic)
            block = _compressed(codec, buffer) if codec else buffer
            _, _, rolled = lane.partition.native.append(block, ahead=self._acks == "all", place=batch)
        except ClosedError:
            self._fail(batch, UnknownTopicOrPartitionError(f"topic {lane.topic.name} was deleted"))
        except Exception as error:
            self._fail(batch, error)
        else:
            self._appended(lane, batch, rolled)

    def _appended(self, lane: Lane, batch: Batch, rolled: bool) -> None:
        try:
            self._log.flusher.note_append(lane.partition, rolled)
        except Exception:  # no thread is to be had, say: the caller is told, but the batch is in the log
            self._acknowledge(lane, batch)
            raise
        self._acknowledge(lane, batch)

    def _acknowledge(self, lane: Lane, batch: Batch) -> None:
        if self._acks == "all":
            self._unflushed_lanes[id(lane)] = lane
            lane.unflushed.append(batch)
        else:
            batch.finish()

    def _fail(self, batch: Batch, error: BaseException) -> None:
        self._failed.append(batch)
        self._log.keep_failed(self)
        batch.finish(error)

    def _settle_soon(self) -> None:
        """Batches that full buffers have sent are flushed by the background thread unless somebody does it before."""
        if self._unflushed_lanes:
            self._log.background.after(0, self._flush_lanes)

    def _flush_lanes(self) -> None:
        """acks="all": wait for the disk, without the lock, so that other threads' appends share the flush."""
        for lane in list(self._unflushed_lanes.values()):
            with lane.turn:
                self._flush(lane)

    def _flush(self, lane: Lane, batch: Batch | None = None) -> None:
        """Flush what was appended, and this batch, if it is still open.  Caller has the lane's turn."""
        with self._lock:
            if batch is not None:
                self._append(lane, batch)
            # They stay there until they are done: if Ctrl-C ends this, whoever waits next flushes.
            batches = [one for one in lane.unflushed if not one.done]
        if batches:
            begun = time.perf_counter()
            try:
                lane.partition.native.flush()
            except Exception as error:
                for one in batches:
                    self._fail(one, error)
            else:
                lane.flush_seconds = time.perf_counter() - begun
                for one in batches:
                    one.finish()
        with self._lock:  # only now: till then flush in another thread waits for its turn
            lane.unflushed = [one for one in lane.unflushed if not one.done]
            if not lane.unflushed:
                self._unflushed_lanes.pop(id(lane), None)

    def raise_unseen(self) -> None:
        """Raise the first failure that nobody has seen; the others are forgotten."""
        with self._lock:
            failed, self._failed = self._failed, []
            self._log.forget_failed(self)
        for batch in failed:
            if not batch.seen and batch.error is not None:
                batch.seen = True
                raise batch.error


def _check_size(topic: Topic, builder: _native.BatchBuilder, what: str = "the record") -> None:
    if builder.size_bytes > topic.batch_bytes_max:
        raise MessageSizeTooLargeError(
            f"{what} takes {builder.size_bytes} bytes as a batch, topic {topic.name} takes {topic.batch_bytes_max} "
            "(max_message_bytes, segment_bytes)"
        )


def _check_each_size(topic: Topic, values: Items, keys: Items | None, headers: Headers | None) -> None:
    """Refuse many records before the first is sent if one is too large by itself."""
    probe = _native.BatchBuilder(BATCH_BYTES_MIN)
    for i, value in enumerate(values):
        probe.append(value, None if keys is None else keys[i], headers, 0)
        _check_size(topic, probe, f"values[{i}]")
        probe.clear()


def _compressed(codec: int, buffer: Any) -> Any:
    """The batch with its records as one compressed block, or as it is where that is smaller."""
    view = memoryview(buffer)
    block = compress(codec, view[_native.BATCH_HEADER_BYTES :])
    if len(block) >= len(view) - _native.BATCH_HEADER_BYTES:
        return buffer
    batch = bytearray(view[: _native.BATCH_HEADER_BYTES])
    batch += block
    set_batch_length(batch, codec)
    return batch


def _as_list(items: Iterable[Any]) -> Items:
    if isinstance(items, str | bytes | bytearray | memoryview):
        raise TypeError(f"an iterable of records is expected, not one {type(items).__name__}")
    return items if isinstance(items, list | tuple) else list(items)


def _pick(items: Items, rows: Rows) -> Items:
    if isinstance(rows, slice):
        return items if rows == ALL_ROWS else items[rows]
    return [items[i] for i in rows]
