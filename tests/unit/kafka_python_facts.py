"""What kafka-python's clients take: options with defaults, parameters, exceptions, fields.  As JSON, for a comparison.

python tests/unit/kafka_python_facts.py > tests/unit/kafka_python_3.0.json    (with kafka-python 3.0 installed)
"""

import importlib
import inspect
import json
import math
import sys
from types import ModuleType
from typing import Any

CLIENTS = ("KafkaProducer", "KafkaConsumer", "KafkaAdminClient")
VALUES = {
    "structs": ("TopicPartition", "TopicPartitionReplica", "OffsetAndMetadata", "OffsetAndTimestamp"),
    "producer.future": ("RecordMetadata",),
    "consumer.fetcher": ("ConsumerRecord",),
}
ENUMERATIONS = (
    "ACLOperation",
    "ACLPermissionType",
    "ACLResourcePatternType",
    "AlterConfigOp",
    "ConfigResourceType",
    "ConfigSourceType",
    "ConfigType",
    "GroupState",
    "GroupType",
    "OffsetSpec",
    "ResourceType",
    "ScramMechanism",
    "TransactionState",
    "UpdateFeatureType",
)
# Where applications import from.
MODULES = (
    "",
    "admin",
    "consumer",
    "coordinator.assignors.cooperative_sticky",
    "coordinator.assignors.range",
    "coordinator.assignors.roundrobin",
    "coordinator.assignors.sticky.sticky_assignor",
    "errors",
    "partitioner",
    "producer",
    "serializer",
    "structs",
)
INNER = {
    "coordinator.assignors.cooperative_sticky": {"CooperativeStickyAssignor"},
    "coordinator.assignors.range": {"RangePartitionAssignor"},
    "coordinator.assignors.roundrobin": {"RoundRobinPartitionAssignor"},
    "coordinator.assignors.sticky.sticky_assignor": {"StickyPartitionAssignor"},
}


def plain(value: Any) -> Any:
    """A default as JSON has it: classes and functions by name, objects by their class."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return str(value) if hasattr(value, "name") else value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, type | float):
        return getattr(value, "__name__", str(value))
    return "a function" if inspect.isfunction(value) else f"a {type(value).__name__}"


def parameters(function: Any) -> list[list[Any]]:
    """Names, and defaults where there are some."""
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = [] if parameter.default is parameter.empty else [plain(parameter.default)]
        found.append([stars + name, *default])
    return found


def shown(module: ModuleType) -> list[str]:
    """Classes and functions that a module is there for."""
    name = module.__name__.partition(".")[2]
    names = INNER.get(name) or {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.partition(".")[0] == module.__name__.partition(".")[0]
    }
    return sorted(names)


def facts(package: str) -> dict[str, Any]:
    """Everything that is compared, of kafka or pylog.kafka."""
    modules = {name: importlib.import_module(f"{package}.{name}" if name else package) for name in MODULES}
    main, errors = modules[""], modules["errors"]
    clients = {name: getattr(main, name) for name in CLIENTS}
    exceptions = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.KafkaError)
    }
    return {
        "version": main.__version__,
        "options": {
            name: {option: plain(default) for option, default in sorted(client.DEFAULT_CONFIG.items())}
            for name, client in clients.items()
        },
        "methods": {
            name: {
                method: parameters(function)
                for method, function in inspect.getmembers(client, inspect.isfunction)
                if not method.startswith("_")
            }
            for name, client in clients.items()
        },
        "errors": {
            name: {
                "errno": getattr(error, "errno", None) if isinstance(getattr(error, "errno", None), int) else None,
                "retriable": error.retriable,
                "broker": issubclass(error, errors.BrokerResponseError),
            }
            for name, error in sorted(exceptions.items())
        },
        "fields": {
            name: list(getattr(importlib.import_module(f"{package}.{module}"), name)._fields)
            for module, names in VALUES.items()
            for name in names
        },
        "enumerations": {
            name: {member.name: member.value for member in getattr(modules["admin"], name)} for name in ENUMERATIONS
        },
        "names": {name: shown(module) for name, module in modules.items()},
    }


def lines(found: dict[str, Any]) -> str:
    """The facts as JSON, each on a line of its own."""
    parts = []
    for section, entries in found.items():
        if not isinstance(entries, dict):
            parts.append(f"{json.dumps(section)}: {json.dumps(entries)}")
            continue
        inner = ",\n".join(f"  {json.dumps(name)}: {_entry(entry)}" for name, entry in sorted(entries.items()))
        parts.append(f"{json.dumps(section)}: {{\n{inner}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _entry(entry: Any) -> str:
    if not isinstance(entry, dict) or len(entry) < 20:
        return json.dumps(entry)
    return "{\n" + ",\n".join(f"    {json.dumps(name)}: {json.dumps(one)}" for name, one in sorted(entry.items())) + "}"


if __name__ == "__main__":
    sys.stdout.write(lines(facts("kafka")))
