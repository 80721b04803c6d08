from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, Protocol, Self, TypeAlias, TypeVar, final, overload

import numpy as np
from typing_extensions import Buffer

_Record = TypeVar("_Record", bound=Record)
_Future = TypeVar("_Future", bound=FutureBase)
_T = TypeVar("_T")
_Deserializer: TypeAlias = Callable[[bytes], Any]
_Data: TypeAlias = Buffer | np.ndarray[Any, Any]
_Column: TypeAlias = Buffer | np.ndarray[Any, Any]
_Field: TypeAlias = _Data | None
_Fields: TypeAlias = list[Any] | tuple[Any, ...]  # each a _Field
_Headers: TypeAlias = Sequence[Sequence[Any]]  # each a (str, _Field) tuple or list

class Record:
    __match_args__ = ("topic", "value", "key", "headers", "partition", "offset", "timestamp", "timestamp_type")
    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...
    @property
    def key(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
    def __new__(
        cls,
        topic: str = "",
        value: Any = None,
        key: Any = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int = 0,
        offset: int = 0,
        timestamp: int = -1,
        timestamp_type: int = 0,
    ) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def replace(self, **changes: Any) -> Self: ...
    def __replace__(self, **changes: Any) -> Self: ...

class FutureBase:
    @property
    def batch(self) -> Any: ...
    @property
    def index(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    def __new__(cls, batch: Any, index: int, timestamp: int = -1, /) -> Self: ...
    @classmethod
    def make(cls, batch: Any, index: int, timestamp: int = -1, /) -> Self: ...

@final
class BatchBuffer(Buffer):
    @property
    def record_count(self) -> int: ...
    @property
    def base_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class BatchBuilder:
    @property
    def bytes_max(self) -> int: ...
    @property
    def record_count(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def base_timestamp(self) -> int: ...
    @property
    def max_timestamp(self) -> int: ...
    @property
    def is_empty(self) -> bool: ...
    owner: Any
    def __new__(cls, bytes_max: int) -> Self: ...
    def append(
        self, value: _Field, key: _Field = None, headers: _Headers | None = None, timestamp: int | None = None, /
    ) -> int: ...
    def append_future(
        self,
        future_type: type[_Future],
        batch: Any,
        value: _Field,
        key: _Field = None,
        headers: _Headers | None = None,
        timestamp: int | None = None,
        /,
    ) -> _Future | None: ...
    def extend(
        self,
        values: _Fields,
        keys: _Fields | None = None,
        timestamps: list[int] | tuple[int, ...] | int | None = None,
        headers: _Headers | None = None,
        start: int = 0,
        /,
    ) -> tuple[int, int]: ...
    def finish(
        self, attributes: int = 0, producer_id: int = -1, producer_epoch: int = -1, base_sequence: int = -1
    ) -> BatchBuffer: ...
    def clear(self) -> None: ...

@final
class TopicSender:
    def __new__(
        cls, future_type: type[FutureBase], builders: tuple[BatchBuilder, ...], by_key: bool, rotates_unkeyed: bool
    ) -> Self: ...
    def send(
        self, value: Any, key: Any, headers: Any, partition: int | None, timestamp: int | None, /
    ) -> FutureBase | None: ...
    def turn(self, count: int = 1, /) -> int: ...

class _Positioned(Protocol):
    position: int

class _Place(Protocol):
    base_offset: int
    timestamp: int

@final
class Handle:
    @property
    def calls(self) -> int: ...
    def __new__(cls, address: int, engine: tuple[int, int, int, int], failed: Callable[[bytes], NoReturn]) -> Self: ...
    def append(self, batch: _Data, ahead: bool, place: _Place | None, /) -> tuple[int, int, bool] | None: ...
    def flush(self) -> int | None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, *error: object) -> None: ...
    def take(self, left: Callable[[], object] | None = None, /) -> bool: ...
    def wait_for_few(
        self,
        seen: int,
        timeout_us: int,
        reader: _Positioned,
        bytes_max: int,
        flags: int,
        cursor: int,
        small: int,
        tp: tuple[str, int],
        limit: int,
        key_deserializer: _Deserializer | None,
        value_deserializer: _Deserializer | None,
        /,
    ) -> dict[Any, list[Record]] | None: ...

class _Lock(Protocol):
    def acquire(self, blocking: bool = ...) -> bool: ...
    def release(self) -> None: ...

class _Opened(Protocol):
    fd: int

@final
class ByteLock(Generic[_T]):
    @property
    def depth(self) -> int: ...
    def __new__(
        cls,
        threads: _Lock,
        file: _Opened,
        unlock: tuple[Callable[..., object], int, bytes],
        begin: Callable[[], _T],
        end: Callable[[], object] | None = None,
        *,
        waits: bool = True,
    ) -> Self: ...
    def __enter__(self) -> _T: ...
    def __exit__(self, *error: object) -> None: ...

@final
class OneThread:
    @property
    def depth(self) -> int: ...
    def __new__(cls, check: Callable[[], None], refuse: Callable[[], NoReturn]) -> Self: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

def bytes_list(data: _Data, starts: _Column, lengths: _Column, /) -> list[bytes | None]: ...
def headers_list(data: _Data, headers_at: _Column, /) -> list[tuple[tuple[str, bytes | None], ...]]: ...
@overload
def records(
    topic: str,
    partition: int,
    timestamp_type: int,
    data: _Data,
    offsets: _Column,
    timestamps: _Column,
    key_at: _Column,
    key_bytes: _Column,
    value_at: _Column,
    value_bytes: _Column,
    headers_at: _Column,
    *,
    key_deserializer: _Deserializer | None = None,
    value_deserializer: _Deserializer | None = None,
) -> list[Record]: ...
@overload
def records(
    topic: str,
    partition: int,
    timestamp_type: int,
    data: _Data,
    offsets: _Column,
    timestamps: _Column,
    key_at: _Column,
    key_bytes: _Column,
    value_at: _Column,
    value_bytes: _Column,
    headers_at: _Column,
    *,
    key_deserializer: _Deserializer | None = None,
    value_deserializer: _Deserializer | None = None,
    record_type: type[_Record],
) -> list[_Record]: ...
def small_records(
    address: int,
    topic: str,
    partition: int,
    key_deserializer: _Deserializer | None,
    value_deserializer: _Deserializer | None,
    /,
) -> list[Record]: ...
def check_values(values: _Fields, what: str, /) -> int: ...
def encode_headers(headers: _Headers | None, /) -> bytes: ...
def forks() -> int: ...
def murmur2(key: _Data, /) -> int: ...
def murmur2_partitions(keys: _Fields, partitions: int, /) -> bytes: ...
def arrow_releases() -> tuple[int, int, int]: ...
def arrow_hold(owner: object, /) -> int: ...
def arrow_capsule(name: str, address: int, owner: object, /) -> object: ...
