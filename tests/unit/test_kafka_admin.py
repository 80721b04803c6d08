"""pylog.kafka.KafkaAdminClient: what it does, and the shapes in which it tells of it."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pylog.kafka import (
    IsolationLevel,
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    TopicPartition,
)
from pylog.kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    AlterConfigOp,
    ConfigResource,
    ConfigResourceType,
    MemberToRemove,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    OffsetTimestamp,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pylog.kafka.errors import (
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    IllegalArgumentError,
    IllegalStateError,
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTopicError,
    KafkaTimeoutError,
    NoError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
    for_code,
)

from .test_kafka_facts import REFUSED

ORDERS = TopicPartition("orders", 0)


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "data")


@pytest.fixture
def admin(directory: str) -> Iterator[KafkaAdminClient]:
    with KafkaAdminClient(bootstrap_servers=directory) as made:
        yield made


def send(directory: str, topic: str, *timestamps: int) -> None:
    with KafkaProducer(bootstrap_servers=directory) as producer:
        for timestamp in timestamps:
            producer.send(topic, b"%d" % timestamp, timestamp_ms=timestamp)


def member(directory: str, group: str, **options: Any) -> KafkaConsumer:
    return KafkaConsumer("orders", bootstrap_servers=directory, group_id=group, auto_offset_reset="earliest", **options)


def codes(result: dict[str, Any]) -> list[int]:
    return [topic["error_code"] for topic in result["topics"]]


# -- topics


def test_topics_are_made_from_names_from_dicts_and_from_new_topics(admin: KafkaAdminClient) -> None:
    made = admin.create_topics(["plain"])["topics"][0]
    assert (made["name"], made["error_code"], made["num_partitions"], made["replication_factor"]) == ("plain", 0, 1, 1)
    assert made["configs"]["cleanup.policy"]["value"] == "delete"
    admin.create_topics({"wide": {"num_partitions": 3, "replication_factor": 3, "configs": {"retention.ms": "1000"}}})
    admin.create_topics([NewTopic("assigned", replica_assignments={0: [1], 1: [2]}, topic_configs={"segment.ms": 5})])
    described = {topic["name"]: topic for topic in admin.describe_topics()}
    assert {name: len(topic["partitions"]) for name, topic in described.items()} == {
        "assigned": 2,
        "plain": 1,
        "wide": 3,
    }
    assert described["plain"]["topic_id"] == made["topic_id"]
    assert isinstance(made["topic_id"], uuid.UUID)
    assert described["wide"]["partitions"][2] == {
        "error_code": 0,
        "partition_index": 2,
        "leader_id": 0,
        "leader_epoch": 0,
        "replica_nodes": [0],
        "isr_nodes": [0],
        "offline_replicas": [],
    }
    assert admin.list_topics() == ["assigned", "plain", "wide"]


def test_a_topic_that_cannot_be_made_does_not_keep_the_others_back(admin: KafkaAdminClient) -> None:
    with pytest.raises(TopicAlreadyExistsError) as raised:
        admin.create_topics(["a", "a", "b"])
    assert raised.value.errno == 36
    assert admin.list_topics() == ["a", "b"]
    result = admin.create_topics({"a": {}, "c": {}, "d e": {}, "f": {"num_partitions": 0}}, raise_errors=False)
    assert [for_code(code) for code in codes(result)] == [
        TopicAlreadyExistsError,
        NoError,
        InvalidTopicError,
        InvalidPartitionsError,
    ]
    assert "there is a topic 'a'" in result["topics"][0]["error_message"]


def test_validation_alone_makes_nothing(admin: KafkaAdminClient) -> None:
    assert codes(admin.create_topics(["a"], validate_only=True)) == [0]
    assert admin.list_topics() == []
    admin.create_topics(["a"])
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics(["a"], validate_only=True)
    with pytest.raises(ValueError, match="exclude each other"):
        admin.create_topics(["b"], validate_only=True, wait_for_metadata=True)
    for nothing in ([], {}, [3], ["a", NewTopic("b"), 3]):
        with pytest.raises(ValueError, match="new_topics must be"):
            admin.create_topics(nothing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a str"):
        admin.create_topics("name")


def test_settings_have_kafka_s_names_and_those_of_brokers_are_passed_over(
    admin: KafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    admin.create_topics({"a": {"configs": {"min.insync.replicas": "2", "cleanup.policy": "delete,compact"}}})
    assert "min.insync.replicas=2 has no meaning" in caplog.text
    described = admin.describe_configs([ConfigResource("topic", "a")])["topic"]["a"]
    assert {name: entry["value"] for name, entry in described.items()} == {"cleanup.policy": "compact,delete"}
    for settings in ({"retention": "1"}, {"retention.ms": "soon"}, {"retention.ms": "-2"}):
        with pytest.raises(InvalidConfigurationError, match="retention"):
            admin.create_topics({"b": {"configs": settings}})


def test_topics_are_deleted_by_name_or_id(admin: KafkaAdminClient) -> None:
    number = admin.create_topics(["a", "b", "c"])["topics"][1]["topic_id"]
    result = admin.delete_topics(["a", number])
    assert [topic["name"] for topic in result["topics"]] == ["a", "b"]
    assert admin.list_topics() == ["c"]
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics(["a", "c"])
    assert admin.list_topics() == []
    assert codes(admin.delete_topics(["a", number], raise_errors=False)) == [3, 100]
    described = admin.describe_topics(["a", number])
    assert [topic["error_code"] for topic in described] == [3, 100]


def test_topics_are_waited_for(admin: KafkaAdminClient, directory: str) -> None:
    with pytest.raises(KafkaTimeoutError, match="not there within 1 ms: late"):
        admin.wait_for_topics(["late"], timeout_ms=1)
    waiter = threading.Thread(target=admin.wait_for_topics, args=(["late"],), kwargs={"timeout_ms": 60_000})
    waiter.start()
    with KafkaAdminClient(bootstrap_servers=directory) as other:
        other.create_topics(["late"], wait_for_metadata=True)
    waiter.join()


# -- settings


def altered(admin: KafkaAdminClient, changes: dict[str, Any], **options: Any) -> tuple[str, dict[str, str]]:
    """What alter_configs says, and what is other than the default afterwards."""
    said = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "a", changes)], **options)
    modified = admin.describe_configs([ConfigResource("TOPIC", "a")])["topic"]["a"]
    return said["topic"]["a"], {name: entry["value"] for name, entry in modified.items()}


def test_settings_are_set_deleted_and_added_to(admin: KafkaAdminClient) -> None:
    admin.create_topics(["a"])
    assert altered(admin, {"retention.ms": "5", "segment.ms": 7}) == ("OK", {"retention.ms": "5", "segment.ms": "7"})
    both = {"retention.ms": ("delete", None), "cleanup.policy": (AlterConfigOp.APPEND, "compact")}
    assert altered(admin, both) == ("OK", {"cleanup.policy": "compact,delete", "segment.ms": "7"})
    less = {"cleanup.policy": (AlterConfigOp.SUBTRACT, "delete")}
    assert altered(admin, less, validate_only=True)[1]["cleanup.policy"] == "compact,delete"
    assert altered(admin, less)[1]["cleanup.policy"] == "compact"
    assert altered(admin, {"retention.ms": "soon"})[0] == "topic setting retention.ms='soon': int is expected"
    with pytest.raises(ValueError, match="no topic settings color"):
        altered(admin, {"color": "red"})
    assert altered(admin, {"color": "red"}, raise_on_unknown=False)[0] == "Kafka has no topic setting 'color'"
    with pytest.raises(ValueError, match="can only SET"):
        altered(admin, less, incremental=False)
    with pytest.raises(ValueError, match="is no list"):
        altered(admin, {"retention.ms": ("append", "1")})
    with pytest.raises(TypeError, match="must be a dict"):
        admin.alter_configs([ConfigResource("topic", "a", ["retention.ms"])])
    assert altered(admin, {})[1] == {"cleanup.policy": "compact", "segment.ms": "7"}
    assert admin.reset_configs([ConfigResource("topic", "a", ["segment.ms"])]) == {"topic": {"a": "OK"}}
    assert altered(admin, {})[1] == {"cleanup.policy": "compact"}
    admin.reset_configs([ConfigResource("topic", "a")])
    assert altered(admin, {})[1] == {}


def test_settings_are_described_as_a_broker_does(admin: KafkaAdminClient) -> None:
    admin.create_topics({"a": {"configs": {"retention.ms": "5"}}})
    found = admin.describe_configs([ConfigResource("topic", "a", ["retention.ms", "segment.ms"])], True, "all")
    assert set(found["topic"]["a"]) == {"retention.ms", "segment.ms"}
    retention, segment = found["topic"]["a"]["retention.ms"], found["topic"]["a"]["segment.ms"]
    assert (retention["config_source"], retention["config_type"]) == ("DYNAMIC_TOPIC_CONFIG", "LONG")
    assert [one["source"] for one in retention["synonyms"]] == ["DYNAMIC_TOPIC_CONFIG", "DEFAULT_CONFIG"]
    assert (segment["value"], segment["is_default"], len(segment["synonyms"])) == ("604800000", True, 1)
    for chosen, expected in (("dynamic", True), ("default", False), ("static", False), ("modified", True)):
        shown = admin.describe_configs([ConfigResource("topic", "a")], config_filter=chosen)["topic"]["a"]
        assert ("retention.ms" in shown) is expected
    assert admin.describe_configs([ConfigResource("broker", "0")]) == {"broker": {"0": {}}}
    assert "no such settings" in admin.alter_configs([ConfigResource("broker", "0")])["broker"]["0"]
    assert admin.list_config_resources() == {"topic": ["a"]}
    assert admin.list_config_resources(["group"]) == {}
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.describe_configs([ConfigResource("topic", "none")])


# -- partitions


def test_partitions_are_added(admin: KafkaAdminClient) -> None:
    admin.create_topics(["a", "b", "c"])
    response = admin.create_partitions({"a": 2, "b": NewPartitions(3), "c": {"count": 4, "assignments": [[1]]}})
    assert [(one.name, one.error_code) for one in response.results] == [("a", 0), ("b", 0), ("c", 0)]
    assert [len(topic["partitions"]) for topic in admin.describe_topics(["a", "b", "c"])] == [2, 3, 4]
    with pytest.raises(InvalidConfigurationError, match="can only get more"):
        admin.create_partitions({"a": 1})
    refused = admin.create_partitions({"a": 1, "none": 2}, raise_errors=False).to_dict()
    assert [one["error_code"] for one in refused["results"]] == [40, 3]
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.create_partitions({"none": 5}, validate_only=True)
    assert admin.list_partition_reassignments() == {}


def test_partitions_are_described_piece_by_piece(admin: KafkaAdminClient) -> None:
    admin.create_topics({"a": {"num_partitions": 3}, "b": {"num_partitions": 3}})
    seen: list[tuple[str, int]] = []
    cursor = None
    for expected in (2, 2, 2):
        page = admin.describe_topic_partitions(["a", "b"], response_partition_limit=2, cursor=cursor)
        found = [(topic["name"], one["partition_index"]) for topic in page["topics"] for one in topic["partitions"]]
        assert len(found) == expected
        seen, cursor = seen + found, page["next_cursor"]
    assert cursor is None
    assert seen == [(name, number) for name in "ab" for number in range(3)]
    assert [topic["error_code"] for topic in admin.describe_topic_partitions(["none"])["topics"]] == [3]


def test_offsets_are_found_by_spec_and_by_time(admin: KafkaAdminClient, directory: str) -> None:
    admin.create_topics({"orders": {"configs": {"segment.bytes": "100"}}})
    for timestamp in (1000, 3000, 2000):  # a batch and a segment each
        send(directory, "orders", timestamp)

    def at(spec: int, **options: Any) -> OffsetAndTimestamp:
        return admin.list_partition_offsets({ORDERS: spec}, **options)[ORDERS]

    assert at(OffsetSpec.EARLIEST) == OffsetAndTimestamp(0, -1)
    assert at(OffsetSpec.LATEST) == OffsetAndTimestamp(3, -1)
    assert at(OffsetSpec.LATEST, isolation_level=IsolationLevel.READ_COMMITTED) == OffsetAndTimestamp(3, -1)
    assert at(OffsetSpec.MAX_TIMESTAMP) == OffsetAndTimestamp(1, 3000)
    assert at(OffsetSpec.LATEST_TIERED) == OffsetAndTimestamp(-1, -1)
    assert at(1500) == OffsetAndTimestamp(1, 3000)
    assert at(4000) == OffsetAndTimestamp(-1, -1)
    with pytest.raises(TypeError, match="OffsetSpec or a timestamp"):
        admin.list_partition_offsets({ORDERS: "earliest"})  # type: ignore[dict-item]
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.list_partition_offsets({TopicPartition("orders", 1): 0})


def test_records_are_deleted(admin: KafkaAdminClient, directory: str) -> None:
    send(directory, "orders", 1, 2, 3)
    assert admin.delete_records({ORDERS: 2}) == {ORDERS: {"partition_index": 0, "low_watermark": 2, "error_code": 0}}
    with pytest.raises(OffsetOutOfRangeError):
        admin.delete_records({ORDERS: 4})
    assert admin.delete_records({ORDERS: -1})[ORDERS]["low_watermark"] == 3


def test_the_directory_is_a_cluster_of_one(admin: KafkaAdminClient, directory: str) -> None:
    send(directory, "orders", 1)
    cluster = admin.describe_cluster()
    assert [broker["broker_id"] for broker in cluster["brokers"]] == [cluster["controller_id"]] == [0]
    assert cluster["brokers"][0]["host"] == directory
    (answer,) = admin.describe_log_dirs()
    (log_dir,) = answer["log_dirs"]
    assert log_dir["topics"][0]["name"] == "orders"
    size = log_dir["topics"][0]["partitions"][0]["partition_size"]
    assert 0 < size <= (Path(directory) / "orders-0" / f"{0:020}.log").stat().st_size
    assert 0 < log_dir["usable_bytes"] <= log_dir["total_bytes"]
    assert admin.describe_log_dirs({"orders": []})[0]["log_dirs"][0]["topics"][0]["partitions"] == []
    assert admin.describe_features() == {}


# -- groups


def test_groups_are_listed_and_described(admin: KafkaAdminClient, directory: str) -> None:
    send(directory, "orders", 1)
    admin.alter_group_offsets("idle", {ORDERS: OffsetAndMetadata(1)})
    with member(directory, "busy", group_instance_id="i") as reader:
        reader.poll()
        listed = admin.list_groups()
        assert {group["group_id"]: group["group_state"] for group in listed} == {"busy": "Stable", "idle": "Empty"}
        assert {(group["protocol_type"], group["group_type"]) for group in listed} == {("consumer", "classic")}
        assert [group["group_id"] for group in admin.list_groups(states_filter=["Empty"])] == ["idle"]
        assert admin.list_groups(types_filter=["share"]) == []
        described = admin.describe_groups(["busy", "none"])
    busy, none = described["busy"], described["none"]
    assert (busy["group_state"], busy["protocol_data"], busy["error"]) == ("Stable", "range", None)
    (one,) = busy["members"]
    assert one["group_instance_id"] == "i"
    assert one["member_assignment"]["assigned_partitions"] == [{"topic": "orders", "partitions": [0]}]
    assert (none["group_state"], none["members"], none["error"]) == ("Dead", [], "there is no group 'none'")


def test_offsets_of_groups_are_listed_altered_and_deleted(admin: KafkaAdminClient, directory: str) -> None:
    send(directory, "orders", 1, 2, 3)
    other = TopicPartition("orders", 7)
    assert admin.alter_group_offsets("g", {}) == {}
    assert admin.alter_group_offsets("g", {ORDERS: OffsetAndMetadata(2, "why")}) == {ORDERS: NoError}
    kept = {ORDERS: OffsetAndMetadata(2, "why")}
    assert admin.list_group_offsets("g") == admin.list_group_offsets(["g"]) == {"g": kept}
    assert admin.list_group_offsets({"g": [ORDERS, other]}) == {"g": {**kept, other: OffsetAndMetadata(-1)}}
    assert admin.list_group_offsets(["none"]) == {"none": {}}
    with pytest.raises(ValueError, match="needs a group"):
        admin.list_group_offsets({})
    with member(directory, "g"):
        assert admin.alter_group_offsets("g", kept) == {ORDERS: UnknownMemberIdError}
        assert admin.delete_group_offsets("g", [ORDERS]) == {ORDERS: GroupSubscribedToTopicError}
        assert admin.delete_groups(["g", "none"]) == {"g": "NonEmptyGroupError", "none": "GroupIdNotFoundError"}
    assert admin.delete_group_offsets("g", []) == {}
    assert admin.delete_group_offsets("g", [ORDERS]) == {ORDERS: NoError}
    with pytest.raises(GroupIdNotFoundError):
        admin.delete_group_offsets("none", [ORDERS])
    admin.alter_group_offsets("g", kept)
    assert admin.delete_groups(["g"]) == {"g": "OK"}
    assert admin.list_groups() == []


def test_groups_go_on_where_they_are_put(admin: KafkaAdminClient, directory: str) -> None:
    send(directory, "orders", 1000, 2000, 3000)
    admin.delete_records({ORDERS: 1})
    for spec, offset in (
        (OffsetSpec.EARLIEST, 1),
        (OffsetSpec.LATEST, 3),
        (OffsetTimestamp(2500), 2),
        (OffsetTimestamp(9000), 3),
        (0, 1),
        (2, 2),
        (99, 3),
    ):
        assert admin.reset_group_offsets("g", {ORDERS: spec}) == {ORDERS: {"error": NoError, "offset": offset}}
        assert admin.list_group_offsets("g")["g"][ORDERS].offset == offset
    admin.alter_group_offsets("g", {ORDERS: OffsetAndMetadata(1, "kept")})
    admin.reset_group_offsets("g", {ORDERS: 2})
    with member(directory, "g", consumer_timeout_ms=50) as reader:
        assert reader.committed(ORDERS, metadata=True) == OffsetAndMetadata(2, "kept")
        assert [record.offset for record in reader] == [2]
        assert admin.reset_group_offsets("g", {ORDERS: 1})[ORDERS]["error"] is UnknownMemberIdError
    assert admin.reset_group_offsets("g", {}) == {}
    with pytest.raises(TypeError, match="OffsetTimestamp or an offset"):
        admin.reset_group_offsets("g", {ORDERS: "earliest"})  # type: ignore[dict-item]


def test_the_names_of_kafka_python_2_work_too(admin: KafkaAdminClient) -> None:
    admin.create_topics(["orders"])
    offsets = {ORDERS: OffsetAndMetadata(0, "x")}
    admin.alter_group_offsets("g", offsets)
    assert admin.list_consumer_groups() == [("g", "consumer")]
    assert [group["group_state"] for group in admin.describe_consumer_groups(["g"])] == ["Empty"]
    assert admin.list_consumer_group_offsets("g") == offsets
    assert admin.delete_consumer_groups(["g"]) == {"g": "OK"}


# -- what a directory cannot have


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_needs_brokers_users_or_transactions_is_refused_with_the_reason(
    admin: KafkaAdminClient, name: str
) -> None:
    with pytest.raises(UnsupportedVersionError, match="has no "):
        getattr(admin, name)("anything", at="all")


def test_members_cannot_be_removed(admin: KafkaAdminClient) -> None:
    assert admin.remove_group_members("g", []) == {}
    with pytest.raises(UnsupportedVersionError, match="a member leaves by"):
        admin.remove_group_members("g", [MemberToRemove("m")])


def test_the_values_that_would_be_refused_can_be_made() -> None:
    orders = ResourcePattern(ResourceType.TOPIC, "orders")
    assert orders.pattern_type is ACLResourcePatternType.LITERAL
    acl = ACL("User:a", "*", ACLOperation.READ, ACLPermissionType.ALLOW, orders)
    assert acl == ACL("User:a", "*", ACLOperation.READ, ACLPermissionType.ALLOW, orders)
    assert ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, orders) != acl
    with pytest.raises(IllegalArgumentError, match="ANY is for filters"):
        ACL("User:a", "*", ACLOperation.ANY, ACLPermissionType.ALLOW, orders)
    with pytest.raises(IllegalArgumentError, match="for filters"):
        ResourcePattern(ResourceType.ANY, "orders")
    with pytest.raises(IllegalArgumentError, match="ResourceType is expected"):
        ResourcePattern("topic", "orders")  # type: ignore[arg-type]
    password = UserScramCredentialUpsertion("a", "scram-sha-256", "secret", salt=b"salt")
    assert (password.mechanism, len(password.salted_password)) == (ScramMechanism.SCRAM_SHA_256, 32)
    with pytest.raises(IllegalArgumentError, match="UNKNOWN"):
        UserScramCredentialUpsertion("a", 0, "secret")


def test_a_closed_client_says_so(admin: KafkaAdminClient) -> None:
    admin.close()
    admin.close()
    with pytest.raises(IllegalStateError, match="the admin client is closed"):
        admin.list_topics()
