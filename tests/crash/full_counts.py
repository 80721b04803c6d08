"""The full counts of docs/durability.md, one campaign after the other: python tests/crash/full_counts.py [NAME ...]

As root on Linux, for loop devices and strace.  Prints each campaign's command and its own last lines; exit status 1 if
any failed.  All together take hours; CI runs a smoke of each.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAST_LINES = 4

CAMPAIGNS = {
    "kills": "PYLOG_KILLS=10000 python -m pytest -q -s tests/crash/test_kill.py -k kill_9",
    "cuts-ext4": "python tests/crash/powercut.py --fs ext4 --cuts 10000",
    "cuts-xfs": "python tests/crash/powercut.py --fs xfs --cuts 2000",
    "cuts-window": "python tests/crash/powercut.py --variant window --cuts 2000",
    "cuts-change": "python tests/crash/powercut.py --variant change --cuts 1000",
    "cuts-recovery": "python tests/crash/powercut.py --variant recovery --cuts 1000",
    "cuts-calls": "python tests/crash/powercut.py --variant calls --cuts 1000",
    "calls": "python tests/crash/syscalls.py --full",
    "deaths": "make -s -C tests/c run-test_deaths PLOG_DEATHS=10000",
    "bits": "PLOG_TEST_FULL=1 make -s -C tests/c run-test_corruption",
    "cut-files": "PLOG_TEST_FULL=1 make -s -C tests/c run-test_recovery",
    "faults": "PLOG_TEST_FULL=1 make -s -C tests/c run-test_faults",
    "sharing": "python tests/crash/sharing.py --seconds 60",
    "groups": "python tests/crash/groups.py --seconds 300",
    "queue": "python tests/crash/queue_rig.py",
    "queue-unkilled": "python tests/crash/queue_rig.py --kill-every 0",
    "workers": "python tests/crash/workers_rig.py",
    "failed-fsyncs": "python tests/crash/failed_fsync.py --runs 100",
    "full-disks": "python tests/crash/disk_full.py --fs tmpfs --fills 1000",
    "clocks": "python tests/crash/clocks.py --scripts 1000",
    "names": "PYLOG_NAMES=1000000 python -m pytest -q tests/unit/test_names.py",
    "repairs": "PYLOG_VERIFY_KILLS=1000 python -m pytest -q tests/unit/test_verify.py",
}


def run(command: str) -> bool:
    """Run one campaign; whether it succeeded."""
    print(f"$ {command}", flush=True)
    settings = [word for word in shlex.split(command) if "=" in word and word.split("=")[0].isupper()]
    words = [word for word in shlex.split(command) if word not in settings or word.startswith("PLOG_DEATHS")]
    words = [sys.executable if word == "python" else word for word in words]
    begun = time.monotonic()
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **dict(setting.split("=", 1) for setting in settings)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines()[-LAST_LINES:]:
        print(f"  {line}")
    verdict = "passed" if done.returncode == 0 else f"FAILED, exit status {done.returncode}"
    print(f"  {verdict} in {time.monotonic() - begun:.0f} s", flush=True)
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Run the named campaigns, or all; the exit status."""
    unknown = [name for name in names if name not in CAMPAIGNS]
    if unknown:
        print(f"no campaign is called {', '.join(unknown)}; there are {', '.join(CAMPAIGNS)}", file=sys.stderr)
        return 2
    results = [run(CAMPAIGNS[name]) for name in names or CAMPAIGNS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
