"""What can go wrong, as one tree.

PylogError
├── BrokerResponseError                 those that Kafka has a number for: errno; marked with *
├── RetriableError                      trying again later may help
│   ├── KafkaTimeoutError               (a TimeoutError too)
│   ├── LogLockedError                  another process has the directory: pid
│   ├── RebalanceInProgressError *
│   └── UnknownTopicOrPartitionError *
├── StorageError                        the disk or the operating system refused (an OSError too)
├── CorruptRecordError *                bytes on the disk are not what they must be: file, position, offset
├── OffsetOutOfRangeError *
├── NoOffsetForPartitionError
├── MessageSizeTooLargeError *
├── UnsupportedCodecError               a codec whose library is not installed
├── TopicAlreadyExistsError *
├── InvalidTopicError *
├── InvalidConfigurationError *
├── GroupIdNotFoundError *, NonEmptyGroupError *, FencedInstanceIdError *, ProducerFencedError *
├── CommitFailedError, LeaseExpiredError
└── IllegalStateError                   a call that cannot be made now
    ├── ClosedError                     the handle was closed
    ├── ForkError                       the handle belongs to the parent process
    └── ConcurrentUseError              two threads in one consumer
"""


class PylogError(Exception):
    """Base of everything that pylog raises on its own account."""

    retriable: bool = False


class BrokerResponseError(PylogError):
    """What a Kafka broker would answer with too; errno is Kafka's number for it."""

    errno: int = -1


class RetriableError(PylogError):
    """The same call may succeed later."""

    retriable = True


class KafkaTimeoutError(RetriableError, TimeoutError):
    """Something did not happen within its time."""


class RebalanceInProgressError(RetriableError, BrokerResponseError):
    """The group's partitions are being handed out anew."""

    errno = 27


class LogLockedError(RetriableError):
    """The directory is in use; pid is the owner's process id, -1 where the system does not tell."""

    pid: int

    def __init__(self, message: str, pid: int = -1) -> None:
        super().__init__(message)
        self.pid = pid


class UnknownTopicOrPartitionError(RetriableError, BrokerResponseError):
    """There is no such topic, or the topic has no such partition."""

    errno = 3


class StorageError(PylogError, OSError):
    """A system call failed; errno and filename are set as in any OSError."""


class CorruptRecordError(BrokerResponseError):
    """Bytes that are not what they must be.

    file: "orders-0/00000000000000000042.log"; position: byte in that file; offset: of the record or batch, None where
    it is not known.
    """

    errno = 2

    file: str
    position: int
    offset: int | None

    def __init__(self, message: str, file: str = "", position: int = -1, offset: int | None = None) -> None:
        where = f"{file}: " if file else ""
        where += f"batch at {position}: " if position >= 0 else ""
        super().__init__(where + message + (f" (offset {offset})" if offset is not None else ""))
        self.file, self.position, self.offset = file, position, offset


class OffsetOutOfRangeError(BrokerResponseError):
    """An offset before the log start or behind the log end."""

    errno = 1


class NoOffsetForPartitionError(PylogError):
    """No committed offset, and auto_offset_reset is "none"."""


class MessageSizeTooLargeError(BrokerResponseError):
    """A batch over max_message_bytes or segment_bytes."""

    errno = 10


class UnsupportedCodecError(PylogError):
    """A compression codec that is unknown or whose library is not installed."""


class TopicAlreadyExistsError(BrokerResponseError):
    """There is a topic of that name."""

    errno = 36


class InvalidTopicError(BrokerResponseError):
    """Not a legal topic name: [a-zA-Z0-9._-]{1,249}, not "." or ".."."""

    errno = 17


class InvalidConfigurationError(BrokerResponseError):
    """An option with a value that makes no sense."""

    errno = 40


class CommitFailedError(PylogError):
    """The offsets cannot be committed: the partitions belong to another member by now."""


class GroupIdNotFoundError(BrokerResponseError):
    """There is no such consumer group."""

    errno = 69


class NonEmptyGroupError(BrokerResponseError):
    """The group still has members."""

    errno = 68


class FencedInstanceIdError(BrokerResponseError):
    """Another member has taken over this group_instance_id."""

    errno = 82


class ProducerFencedError(BrokerResponseError):
    """Another producer has taken over this transactional_id."""

    errno = 90


class LeaseExpiredError(PylogError):
    """The message was handed to another consumer by now."""


class IllegalStateError(PylogError):
    """The call cannot be made in the state the handle is in."""


class ClosedError(IllegalStateError):
    """The handle was closed."""


class ForkError(IllegalStateError):
    """The handle was opened by the parent process; open the directory again in the child."""


class ConcurrentUseError(IllegalStateError):
    """A consumer was used by two threads at once."""
