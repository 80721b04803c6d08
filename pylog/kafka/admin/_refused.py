"""What needs brokers, users or transactions: it is refused with the reason; and the values that it would take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

from .._enums import Choice
from ..errors import IllegalArgumentError, UnsupportedVersionError
from ..structs import TopicPartition


class UpdateFeatureType(Choice, IntEnum):
    """Which way update_features goes."""

    UNKNOWN = 0
    UPGRADE = 1
    SAFE_DOWNGRADE = 2
    UNSAFE_DOWNGRADE = 3


class ScramMechanism(Choice, IntEnum):
    """How passwords are hashed."""

    UNKNOWN = 0
    SCRAM_SHA_256 = 1
    SCRAM_SHA_512 = 2

    @property
    def hash_name(self) -> str:
        """hashlib's name."""
        return f"sha{self.name.rpartition('_')[2]}"


class UserScramCredentialDeletion:
    """A user's password to delete."""

    def __init__(self, user: str, mechanism: ScramMechanism | int | str) -> None:
        self.user = user
        self.mechanism = ScramMechanism.build_from(mechanism)


class UserScramCredentialUpsertion(UserScramCredentialDeletion):
    """A user's password to set."""

    DEFAULT_ITERATIONS = 4096

    def __init__(
        self,
        user: str,
        mechanism: ScramMechanism | int | str,
        password: bytes | str,
        iterations: int | None = None,
        salt: bytes | None = None,
    ) -> None:
        super().__init__(user, mechanism)
        if self.mechanism is ScramMechanism.UNKNOWN:
            raise IllegalArgumentError("the mechanism must not be UNKNOWN")
        self.iterations = self.DEFAULT_ITERATIONS if iterations is None else iterations
        self.salt = os.urandom(24) if salt is None else salt
        secret = password.encode() if isinstance(password, str) else password
        self.salted_password = hashlib.pbkdf2_hmac(self.mechanism.hash_name, secret, self.salt, self.iterations)


class TransactionState(str, Choice):
    """How far a transaction is."""

    EMPTY = "Empty"
    ONGOING = "Ongoing"
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"
    DEAD = "Dead"
    PREPARE_EPOCH_FENCE = "PrepareEpochFence"
    UNKNOWN = "Unknown"


class TransactionListing(NamedTuple):
    """A transaction in a list."""

    transactional_id: str
    producer_id: int
    state: TransactionState


class TransactionDescription(NamedTuple):
    """A transaction in detail."""

    coordinator_id: int
    state: TransactionState
    producer_id: int
    producer_epoch: int
    transaction_timeout_ms: int
    transaction_start_time_ms: int
    topic_partitions: set[TopicPartition]


class ProducerState(NamedTuple):
    """A producer as a partition knows it."""

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp: int
    coordinator_epoch: int
    current_transaction_start_offset: int


class PartitionProducerState(NamedTuple):
    """A partition's producers."""

    active_producers: list[ProducerState]


class AbortTransactionSpec(NamedTuple):
    """A transaction to abort."""

    topic_partition: TopicPartition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int = -1


def _refusal(reason: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise UnsupportedVersionError(reason)

    refuse.__doc__ = f"UnsupportedVersionError: {reason}."
    return refuse


_NO_ACLS = "a directory has no access control lists; who may do what, its file permissions say"
_NO_USERS = "a directory has no users; who may do what, its file permissions say"
_NO_BROKERS = "a directory has no brokers and no replicas"
_NO_TRANSACTIONS = "this version of pylog has no transactions yet"


class Refused:
    """The part of KafkaAdminClient that a directory cannot have.  Each method raises UnsupportedVersionError."""

    describe_acls = create_acls = delete_acls = _refusal(_NO_ACLS)
    describe_user_scram_credentials = alter_user_scram_credentials = _refusal(_NO_USERS)
    elect_leaders = alter_partition_reassignments = alter_replica_log_dirs = _refusal(_NO_BROKERS)
    describe_metadata_quorum = get_broker_version_data = api_versions = update_features = _refusal(_NO_BROKERS)
    list_transactions = describe_transactions = abort_transaction = _refusal(_NO_TRANSACTIONS)
    find_hanging_transactions = describe_producers = _refusal(_NO_TRANSACTIONS)
