"""kafka-python's exceptions.  What pylog raises are pylog's own classes under kafka-python's names.

KafkaError is PylogError.  The others are here so that what imports or catches them goes on working; most speak of
brokers and networks, and are never raised.
"""

from typing import TYPE_CHECKING

from .._errors import (
    BrokerResponseError,
    CommitFailedError,
    CorruptRecordError,
    FencedInstanceIdError,
    GroupIdNotFoundError,
    IllegalStateError,
    InvalidConfigurationError,
    InvalidTopicError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NonEmptyGroupError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    ProducerFencedError,
    PylogError,
    RebalanceInProgressError,
    RetriableError,
    StorageError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedCodecError,
)

KafkaError = PylogError
KafkaConfigurationError = InvalidConfigurationError
KafkaStorageError = StorageError
CorruptRecordException = CorruptRecordError


class InvalidMetadataError(RetriableError):
    """What is known of the cluster is out of date."""

    invalid_metadata = True


class Cancelled(RetriableError):
    """A request was given up."""


class IllegalArgumentError(PylogError):
    """An argument that makes no sense."""


class KafkaConnectionError(InvalidMetadataError):
    """No connection."""


class KafkaProtocolError(PylogError):
    """Bytes that are no answer."""


class CorrelationIdError(RetriableError, KafkaProtocolError):
    """An answer to another request."""


class InvalidReceiveError(KafkaProtocolError):
    """An answer of impossible length."""


class MetadataEmptyBrokerList(RetriableError):
    """A cluster without brokers."""


class LogTruncationError(PylogError):
    """Records that were read are gone: divergent_offsets says where."""

    def __init__(self, divergent_offsets: object, *args: object) -> None:
        self.divergent_offsets = divergent_offsets
        super().__init__(*(args or (f"truncated: {divergent_offsets}",)))


class NodeNotReadyError(RetriableError):
    """A broker that cannot be asked yet."""


class UnknownBrokerIdError(PylogError):
    """No such broker."""


class QuotaViolationError(PylogError):
    """More than the quota allows."""


class StaleMetadata(InvalidMetadataError):
    """What is known of the cluster is out of date."""


class TooManyInFlightRequests(RetriableError):
    """A connection that is busy."""


class UnrecognizedBrokerVersion(PylogError):
    """A broker of unknown version."""


class TransactionAbortedError(PylogError):
    """The batch's transaction was aborted."""


class AuthorizationError(BrokerResponseError):
    """Not allowed."""


class UnsupportedVersionError(BrokerResponseError):
    """This version of pylog, or a directory as such, has no such thing."""

    errno = 35


class IncompatibleBrokerVersion(UnsupportedVersionError):
    """The same."""


class UnknownError(BrokerResponseError):
    """Any other."""

    errno = -1


_METADATA = """
5 LeaderNotAvailableError 6 NotLeaderForPartitionError 9 ReplicaNotAvailableError 13 NetworkExceptionError
72 ListenerNotFoundError 74 FencedLeaderEpochError 75 UnknownLeaderEpochError 80 PreferredLeaderNotAvailableError
83 EligibleLeadersNotAvailableError 84 ElectionNotNeededError 100 UnknownTopicIdError 103 InconsistentTopicIdError
"""
_RETRIABLE = """
7 RequestTimedOutError 14 CoordinatorLoadInProgressError 15 CoordinatorNotAvailableError 16 NotCoordinatorError
19 NotEnoughReplicasError 20 NotEnoughReplicasAfterAppendError 41 NotControllerError 51 ConcurrentTransactionsError
70 FetchSessionIdNotFoundError 71 InvalidFetchSessionEpochError 78 OffsetNotAvailableError 88 UnstableOffsetCommitError
89 ThrottlingQuotaExceededError 106 FetchSessionTopicIdError 122 ShareSessionNotFoundError
123 InvalidShareSessionEpochError
"""
_AUTHORIZATION = """
29 TopicAuthorizationFailedError 30 GroupAuthorizationFailedError 31 ClusterAuthorizationFailedError
53 TransactionalIdAuthorizationFailedError 65 DelegationTokenAuthorizationFailedError
"""
_OTHERS = """
0 NoError 4 InvalidFetchRequestError 8 BrokerNotAvailableError 11 StaleControllerEpochError
12 OffsetMetadataTooLargeError 18 RecordListTooLargeError 21 InvalidRequiredAcksError 22 IllegalGenerationError
23 InconsistentGroupProtocolError 24 InvalidGroupIdError 25 UnknownMemberIdError 26 InvalidSessionTimeoutError
28 InvalidCommitOffsetSizeError 32 InvalidTimestampError 33 UnsupportedSaslMechanismError 34 IllegalSaslStateError
37 InvalidPartitionsError 38 InvalidReplicationFactorError 39 InvalidReplicationAssignmentError 42 InvalidRequestError
43 UnsupportedForMessageFormatError 44 PolicyViolationError 45 OutOfOrderSequenceNumberError
46 DuplicateSequenceNumberError 47 InvalidProducerEpochError 48 InvalidTxnStateError 49 InvalidProducerIdMappingError
50 InvalidTransactionTimeoutError 52 TransactionCoordinatorFencedError 54 SecurityDisabledError
55 OperationNotAttemptedError 57 LogDirNotFoundError 58 SaslAuthenticationFailedError 59 UnknownProducerIdError
60 ReassignmentInProgressError 61 DelegationTokenAuthDisabledError 62 DelegationTokenNotFoundError
63 DelegationTokenOwnerMismatchError 64 DelegationTokenRequestNotAllowedError 66 DelegationTokenExpiredError
67 InvalidPrincipalTypeError 73 TopicDeletionDisabledError 76 UnsupportedCompressionTypeError 77 StaleBrokerEpochError
79 MemberIdRequiredError 81 GroupMaxSizeReachedError 85 NoReassignmentInProgressError 86 GroupSubscribedToTopicError
87 InvalidRecordError 91 ResourceNotFoundError 92 DuplicateResourceError 93 UnacceptableCredentialError
94 InconsistentVoterSetError 95 InvalidUpdateVersionError 96 FeatureUpdateFailedError
97 PrincipalDeserializationFailureError 98 SnapshotNotFoundError 99 PositionOutOfRangeError
101 DuplicateBrokerRegistrationError 102 BrokerIdNotRegisteredError 104 InconsistentClusterIdError
105 TransactionalIdNotFoundError 107 IneligibleReplicaError 108 NewLeaderElectedError
109 OffsetMovedToTieredStorageError 110 FencedMemberEpochError 111 UnreleasedInstanceIdError
112 UnsupportedAssignorError 113 StaleMemberEpochError 114 MismatchedEndpointTypeError 115 UnsupportedEndpointTypeError
116 UnknownControllerIdError 117 UnknownSubscriptionIdError 118 TelemetryTooLargeError 119 InvalidRegistrationError
120 TransactionAbortableError 121 InvalidRecordStateError 124 FencedStateEpochError 125 InvalidVoterKeyError
126 DuplicateVoterError 127 VoterNotFoundError
"""

kafka_errors: dict[int, type[PylogError]] = {
    error.errno: error
    for error in (
        UnknownError,
        OffsetOutOfRangeError,
        CorruptRecordError,
        UnknownTopicOrPartitionError,
        MessageSizeTooLargeError,
        InvalidTopicError,
        RebalanceInProgressError,
        UnsupportedVersionError,
        TopicAlreadyExistsError,
        InvalidConfigurationError,
        NonEmptyGroupError,
        GroupIdNotFoundError,
        FencedInstanceIdError,
        ProducerFencedError,
    )
}
kafka_errors[56] = StorageError


def _make(table: str, *bases: type[PylogError]) -> None:
    words = table.split()
    for number, name in zip(map(int, words[::2]), words[1::2], strict=True):
        text = "One of Kafka's answers."
        globals()[name] = kafka_errors[number] = type(
            name, bases, {"errno": number, "__doc__": text, "__module__": __name__}
        )


_make(_METADATA, InvalidMetadataError, BrokerResponseError)
_make(_RETRIABLE, RetriableError, BrokerResponseError)
_make(_AUTHORIZATION, AuthorizationError)
_make(_OTHERS, BrokerResponseError)

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[BrokerResponseError]: ...


def for_code(error_code: int) -> type[PylogError]:
    """The class that stands for Kafka's number; an UnknownError for numbers that have none."""
    found = kafka_errors.get(error_code)
    return found or type("UnrecognizedBrokerError", (UnknownError,), {"errno": error_code})


__all__ = [
    "AuthorizationError",
    "BrokerResponseError",
    "Cancelled",
    "CommitFailedError",
    "CorrelationIdError",
    "CorruptRecordError",
    "CorruptRecordException",
    "FencedInstanceIdError",
    "GroupIdNotFoundError",
    "IllegalArgumentError",
    "IllegalStateError",
    "IncompatibleBrokerVersion",
    "InvalidConfigurationError",
    "InvalidMetadataError",
    "InvalidReceiveError",
    "InvalidTopicError",
    "KafkaConfigurationError",
    "KafkaConnectionError",
    "KafkaError",
    "KafkaProtocolError",
    "KafkaStorageError",
    "KafkaTimeoutError",
    "LogTruncationError",
    "MessageSizeTooLargeError",
    "MetadataEmptyBrokerList",
    "NoOffsetForPartitionError",
    "NodeNotReadyError",
    "NonEmptyGroupError",
    "OffsetOutOfRangeError",
    "ProducerFencedError",
    "QuotaViolationError",
    "RebalanceInProgressError",
    "RetriableError",
    "StaleMetadata",
    "StorageError",
    "TooManyInFlightRequests",
    "TopicAlreadyExistsError",
    "TransactionAbortedError",
    "UnknownBrokerIdError",
    "UnknownError",
    "UnknownTopicOrPartitionError",
    "UnrecognizedBrokerVersion",
    "UnsupportedCodecError",
    "UnsupportedVersionError",
    "for_code",
    "kafka_errors",
]
