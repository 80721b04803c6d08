"""pylog.kafka beside kafka-python: the same options, defaults, parameters, exceptions, fields and names.

What kafka-python has is in kafka_python_3.0.json; kafka_python_facts.py tells how it comes there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import kafka
from pylog.kafka import errors

from .kafka_python_facts import CLIENTS, facts

THEIRS: dict[str, Any] = json.loads(Path(__file__).with_name("kafka_python_3.0.json").read_text())
OURS: dict[str, Any] = json.loads(json.dumps(facts("pylog.kafka")))

# What a directory cannot have; test_kafka_admin.py sees each refused.
REFUSED = {
    "abort_transaction",
    "alter_partition_reassignments",
    "alter_replica_log_dirs",
    "alter_user_scram_credentials",
    "api_versions",
    "create_acls",
    "delete_acls",
    "describe_acls",
    "describe_metadata_quorum",
    "describe_producers",
    "describe_transactions",
    "describe_user_scram_credentials",
    "elect_leaders",
    "find_hanging_transactions",
    "get_broker_version_data",
    "list_transactions",
    "update_features",
}
# kafka-python 2's names, which 3 has no more.
FORMER = {"list_consumer_groups", "describe_consumer_groups", "list_consumer_group_offsets", "delete_consumer_groups"}
# Here they are pylog's: a class of its own for options, the disk's errors, a rebalance that passes.
OTHER_ERRORS = {"KafkaConfigurationError", "KafkaStorageError", "RebalanceInProgressError"}
BASES = {"BrokerResponseError", "AuthorizationError"}  # kafka-python's have no number


def test_the_version_is_the_one_compared_with() -> None:
    assert kafka.__version__ == THEIRS["version"]


@pytest.mark.parametrize("client", CLIENTS)
def test_options_and_defaults_are_the_same(client: str) -> None:
    theirs = {**THEIRS["options"][client], "kafka_client": None}  # a class that makes connections
    assert OURS["options"][client] == theirs


@pytest.mark.parametrize("client", CLIENTS)
def test_methods_take_the_same_parameters(client: str) -> None:
    ours, theirs = OURS["methods"][client], THEIRS["methods"][client]
    theirs.pop("max_usable_produce_magic", None)
    assert set(theirs) <= set(ours)
    compared = {name: ours[name] for name in theirs if name not in REFUSED}
    assert compared == {name: theirs[name] for name in compared}
    assert set(ours) - set(theirs) == (FORMER if client == "KafkaAdminClient" else set())


def test_every_exception_has_its_number_and_its_place() -> None:
    assert set(THEIRS["errors"]) <= set(OURS["errors"])
    compared = set(THEIRS["errors"]) - OTHER_ERRORS - BASES
    assert {name: OURS["errors"][name] for name in compared} == {name: THEIRS["errors"][name] for name in compared}


def test_for_code_gives_the_class_of_the_number() -> None:
    numbered = {name: fact["errno"] for name, fact in THEIRS["errors"].items() if fact["errno"] is not None}
    wrong = {name for name, number in numbered.items() if errors.for_code(number) is not getattr(errors, name)}
    assert wrong == {"IncompatibleBrokerVersion"}  # two have the number 35
    unknown = errors.for_code(9999)
    assert issubclass(unknown, errors.UnknownError)
    assert unknown.errno == 9999  # type: ignore[attr-defined]


def test_the_base_of_all_errors_is_pylog_s_own() -> None:
    assert errors.KafkaError is pylog.PylogError
    assert errors.TopicAlreadyExistsError is pylog.TopicAlreadyExistsError


@pytest.mark.parametrize("name", sorted(THEIRS["fields"]))
def test_values_have_the_same_fields(name: str) -> None:
    assert OURS["fields"][name] == THEIRS["fields"][name]


@pytest.mark.parametrize("name", sorted(THEIRS["enumerations"]))
def test_enumerations_have_the_same_members(name: str) -> None:
    assert OURS["enumerations"][name] == THEIRS["enumerations"][name]


@pytest.mark.parametrize("module", sorted(THEIRS["names"]))
def test_what_can_be_imported_from_kafka_can_be_imported_from_pylog_kafka(module: str) -> None:
    assert set(THEIRS["names"][module]) - set(OURS["names"][module]) == set()
