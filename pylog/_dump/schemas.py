"""The messages inside Kafka's own topics: __consumer_offsets, __transaction_state, and control records.

Types of __consumer_offsets that only brokers of other protocols write (share and streams groups, 9 to 15 and 17 to 23)
are left out and shown as unknown.
"""

from .schema import Field, Struct

NO_UUID = "AAAAAAAAAAAAAAAAAAAAAA"


def _key(name: str, *strings: str, number: str | None = None) -> Struct:
    fields = [Field(string, "string") for string in strings]
    return Struct(name, (*fields, *([Field(number, "int32")] if number else [])))


_OFFSET_KEY = _key("OffsetCommitKey", "group", "topic", number="partition")

_OFFSET_VALUE = Struct(
    "OffsetCommitValue",
    (
        Field("offset", "int64"),
        Field("leaderEpoch", "int32", since=3),
        Field("metadata", "string"),
        Field("commitTimestamp", "int64"),
        Field("expireTimestamp", "int64", since=1, until=1),
        Field("topicId", "uuid", since=4, tag=0, default=NO_UUID),
    ),
    flexible=4,
    highest=4,
)

_LEGACY_OFFSET_VALUE = Struct(
    "LegacyOffsetCommitValue",
    (Field("offset", "int64"), Field("metadata", "string"), Field("commitTimestamp", "int64")),
    highest=0,
)

_MEMBER = Struct(
    "MemberMetadata",
    (
        Field("memberId", "string"),
        Field("groupInstanceId", "string", since=3, nullable=True),
        Field("clientId", "string"),
        Field("clientHost", "string"),
        Field("rebalanceTimeout", "int32", since=1),
        Field("sessionTimeout", "int32"),
        Field("subscription", "bytes"),
        Field("assignment", "bytes"),
    ),
    flexible=4,
    highest=4,
)

_GROUP_VALUE = Struct(
    "GroupMetadataValue",
    (
        Field("protocolType", "string"),
        Field("generation", "int32"),
        Field("protocol", "string", nullable=True),
        Field("leader", "string", nullable=True),
        Field("currentStateTimestamp", "int64", since=2),
        Field("members", [_MEMBER]),
    ),
    flexible=4,
)

_PARTITIONS = Struct("TopicPartition", (Field("topic", "string"), Field("partitions", ["int32"])), highest=3)

SUBSCRIPTION = Struct(
    "ConsumerProtocolSubscription",
    (
        Field("topics", ["string"]),
        Field("userData", "bytes", nullable=True),
        Field("ownedPartitions", [_PARTITIONS], since=1),
        Field("generationId", "int32", since=2),
        Field("rackId", "string", since=3, nullable=True),
    ),
)

ASSIGNMENT = Struct(
    "ConsumerProtocolAssignment",
    (Field("assignedPartitions", [_PARTITIONS]), Field("userData", "bytes", nullable=True)),
)

_CLASSIC_PROTOCOL = Struct("ClassicProtocol", (Field("name", "string"), Field("metadata", "bytes")), 0, 0)
_CLASSIC_MEMBER = Struct(
    "ClassicMemberMetadata",
    (Field("sessionTimeoutMs", "int32"), Field("supportedProtocols", [_CLASSIC_PROTOCOL])),
    0,
    0,
)
_NO_CLASSIC_MEMBER = {"sessionTimeoutMs": 0, "supportedProtocols": []}
_ASSIGNED = Struct("TopicPartition", (Field("topicId", "uuid"), Field("partitions", ["int32"])), 0, 0)
_OWNED = Struct(
    "TopicPartitions",
    (*_ASSIGNED.fields, Field("assignmentEpochs", ["int32"], nullable=True, tag=0, default=[])),
    0,
    0,
)
_PARTITION_RACKS = Struct("PartitionMetadata", (Field("partition", "int32"), Field("racks", ["string"])), 0, 0)
_TOPIC = Struct(
    "TopicMetadata",
    (
        Field("topicId", "uuid"),
        Field("topicName", "string"),
        Field("numPartitions", "int32"),
        Field("partitionMetadata", [_PARTITION_RACKS]),
    ),
    0,
    0,
)

_CONSUMER_GROUP = Struct(
    "ConsumerGroupMetadataValue", (Field("epoch", "int32"), Field("metadataHash", "int64", tag=0, default=0)), 0, 0
)
_CONSUMER_MEMBER = Struct(
    "ConsumerGroupMemberMetadataValue",
    (
        Field("instanceId", "string", nullable=True),
        Field("rackId", "string", nullable=True),
        Field("clientId", "string"),
        Field("clientHost", "string"),
        Field("subscribedTopicNames", ["string"]),
        Field("subscribedTopicRegex", "string", nullable=True),
        Field("rebalanceTimeoutMs", "int32"),
        Field("serverAssignor", "string", nullable=True),
        Field("classicMemberMetadata", _CLASSIC_MEMBER, tag=0, default=_NO_CLASSIC_MEMBER),
    ),
    0,
    0,
)
_CONSUMER_CURRENT = Struct(
    "ConsumerGroupCurrentMemberAssignmentValue",
    (
        Field("memberEpoch", "int32"),
        Field("previousMemberEpoch", "int32"),
        Field("state", "int8"),
        Field("assignedPartitions", [_OWNED]),
        Field("partitionsPendingRevocation", [_OWNED]),
    ),
    0,
    0,
)

# Type number, the key's first two bytes, to the schemas of the rest of the key and of the value.
OFFSETS: dict[int, tuple[Struct, Struct]] = {
    0: (_OFFSET_KEY, _LEGACY_OFFSET_VALUE),
    1: (_OFFSET_KEY, _OFFSET_VALUE),
    2: (_key("GroupMetadataKey", "group"), _GROUP_VALUE),
    3: (_key("ConsumerGroupMetadataKey", "groupId"), _CONSUMER_GROUP),
    4: (
        _key("ConsumerGroupPartitionMetadataKey", "groupId"),
        Struct("ConsumerGroupPartitionMetadataValue", (Field("topics", [_TOPIC]),), 0, 0),
    ),
    5: (_key("ConsumerGroupMemberMetadataKey", "groupId", "memberId"), _CONSUMER_MEMBER),
    6: (
        _key("ConsumerGroupTargetAssignmentMetadataKey", "groupId"),
        Struct(
            "ConsumerGroupTargetAssignmentMetadataValue",
            (Field("assignmentEpoch", "int32"), Field("assignmentTimestamp", "int64", tag=0, default=0)),
            0,
            0,
        ),
    ),
    7: (
        _key("ConsumerGroupTargetAssignmentMemberKey", "groupId", "memberId"),
        Struct("ConsumerGroupTargetAssignmentMemberValue", (Field("topicPartitions", [_ASSIGNED]),), 0, 0),
    ),
    8: (_key("ConsumerGroupCurrentMemberAssignmentKey", "groupId", "memberId"), _CONSUMER_CURRENT),
    16: (
        _key("ConsumerGroupRegularExpressionKey", "groupId", "regularExpression"),
        Struct(
            "ConsumerGroupRegularExpressionValue",
            (Field("topics", ["string"]), Field("version", "int64"), Field("timestamp", "int64")),
            0,
            0,
        ),
    ),
}

_TRANSACTION_PARTITIONS = Struct(
    "PartitionsSchema", (Field("topic", "string"), Field("partitionIds", ["int32"])), flexible=1, highest=1
)
_TRANSACTION_VALUE = Struct(
    "TransactionLogValue",
    (
        Field("producerId", "int64"),
        Field("previousProducerId", "int64", since=1, tag=0, default=-1),
        Field("nextProducerId", "int64", since=1, tag=1, default=-1),
        Field("producerEpoch", "int16"),
        Field("nextProducerEpoch", "int16", since=1, tag=3, default=-1),
        Field("transactionTimeoutMs", "int32"),
        Field("transactionStatus", "int8"),
        Field("transactionPartitions", [_TRANSACTION_PARTITIONS], nullable=True),
        Field("transactionLastUpdateTimestampMs", "int64"),
        Field("transactionStartTimestampMs", "int64"),
        Field("clientTransactionVersion", "int16", since=1, tag=2, default=0),
    ),
    flexible=1,
    highest=1,
)
TRANSACTIONS: dict[int, tuple[Struct, Struct]] = {0: (_key("TransactionLogKey", "transactionalId"), _TRANSACTION_VALUE)}

_VOTER = Struct("Voter", (Field("voterId", "int32"), Field("voterDirectoryId", "uuid", since=1)), 0)
_ENDPOINT = Struct("Endpoint", (Field("name", "string"), Field("host", "string"), Field("port", "uint16")), 0)
_FEATURE = Struct(
    "KRaftVersionFeature", (Field("minSupportedVersion", "int16"), Field("maxSupportedVersion", "int16")), 0
)
_FULL_VOTER = Struct(
    "Voter",
    (
        Field("voterId", "int32"),
        Field("voterDirectoryId", "uuid"),
        Field("endpoints", [_ENDPOINT]),
        Field("kRaftVersionFeature", _FEATURE),
    ),
    0,
)
_VERSION = Field("version", "int16")

# Control type to the words in front of its JSON and the value's schema; its version is its own first field.
CONTROL: dict[int, tuple[str, Struct]] = {
    2: (
        " LeaderChange: ",
        Struct(
            "LeaderChangeMessage",
            (_VERSION, Field("leaderId", "int32"), Field("voters", [_VOTER]), Field("grantingVoters", [_VOTER])),
            0,
        ),
    ),
    3: (" SnapshotHeader ", Struct("SnapshotHeaderRecord", (_VERSION, Field("lastContainedLogTimestamp", "int64")), 0)),
    4: (" SnapshotFooter ", Struct("SnapshotFooterRecord", (_VERSION,), 0)),
    5: (" KRaftVersion ", Struct("KRaftVersionRecord", (_VERSION, Field("kRaftVersion", "int16")), 0)),
    6: (" KRaftVoters ", Struct("VotersRecord", (_VERSION, Field("voters", [_FULL_VOTER])), 0)),
}
