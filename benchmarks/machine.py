"""What a figure was measured on: processor, kernel, Python, file system, versions, load."""

from __future__ import annotations

import os
import platform
import sysconfig
from importlib import metadata
from pathlib import Path

_DISTRIBUTIONS = ("pylog-storage", "numpy", "lmdb", "confluent-kafka", "lz4", "pyarrow")


def describe(directory: Path) -> dict[str, str]:
    """Name the machine, the interpreter and the file system under ``directory``, each as one line of text."""
    optimised = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "processor": f"{_processor()}, {os.cpu_count()} logical cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        + (", optimised build" if optimised else ""),
        "file system": _file_system(directory),
        "versions": ", ".join(filter(None, map(_version, _DISTRIBUTIONS))),
        "load average": load_average(),
    }


def load_average() -> str:
    """The one-, five- and fifteen-minute load averages, as one line of text."""
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def _file_system(directory: Path) -> str:
    """The type of the file system mounted closest above ``directory``."""
    resolved = directory.resolve()
    best_mount, best_type = Path("/"), "unknown"
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return best_type
    for line in lines:
        mount_fields, _, type_fields = line.partition(" - ")
        mount = Path(mount_fields.split()[4])
        if resolved.is_relative_to(mount) and len(mount.parts) >= len(best_mount.parts):
            best_mount, best_type = mount, type_fields.split()[0]
    return best_type


def _version(distribution: str) -> str | None:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return None
