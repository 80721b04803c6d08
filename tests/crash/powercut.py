"""Cuts the power under pylog and looks whether it kept its promises.  Root, Linux; see docs/durability.md.

python tests/crash/powercut.py --fs ext4 --cuts 10000                 acks="all": no acknowledged record is lost
python tests/crash/powercut.py --fs ext4 --cuts 2000 --variant window acks=1: not more than flush_ms is lost, at the end
python tests/crash/powercut.py --fs xfs --cuts 1000 --variant change  small segments; topics come and go, clean closes
python tests/crash/powercut.py --variant recovery --cuts 1000         the power goes at every call of recoveries
python tests/crash/powercut.py --variant calls --cuts 1000            the power goes at every call of scripts of changes

Each cut: mount, a child opens the directory, checks it against what was acknowledged and goes on writing; the parent
reads acknowledgements until the power goes (FS_IOC_SHUTDOWN on the mount), kills the child, unmounts.  Now and then a
child is killed and followed by another before the power goes.

With --skip-sync 50 every fiftieth fsync is swallowed: the control, which must end in a loss.

Exit status: 0, all cuts survived; 1, something was lost; 2, it cannot be tried here; 3, anything else went wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # children are forked: numpy's threads would not follow
sys.path.insert(0, str(Path(__file__).parent))  # python -P would not find the modules beside this one

import powercut_disk
from powercut_calls import cut_calls, cut_recovery
from powercut_disk import Disk
from powercut_fork import note_signals
from powercut_model import LossError
from powercut_rig import Options, Rig, RigError
from powercut_shim import Shim, shim

VARIANTS = ("all", "window", "change", "recovery", "calls")
SHIMMED = ("recovery", "calls")


def main() -> int:
    """The command; returns the exit status."""
    options = _options()
    problem = powercut_disk.problem(options.kind)
    needs_gcc = options.skip_sync > 0 or options.variant in SHIMMED
    if problem is None and needs_gcc and not shutil.which("gcc"):
        problem = "gcc is not installed"
    if problem is not None:
        sys.stderr.write(f"powercut: cannot be tried here: {problem}\n")
        return 2
    preloaded = shim() if needs_gcc else None
    if preloaded is not None:
        preloaded.set(skip_every=options.skip_sync)
    powercut_disk.hide_mounts()
    note_signals()
    try:
        with Disk(options.kind) as disk:
            return _run(Rig(options, disk, random.Random(options.seed)), preloaded)
    except BaseException:  # a traceback that nobody catches would end in the status that stands for a loss
        traceback.print_exc()
        return 3


def _run(rig: Rig, preloaded: Shim | None) -> int:
    sys.stdout.write(f"powercut: {rig.options}\n")
    begun = said = time.monotonic()
    status, word = 0, "nothing lost"
    try:
        for _ in _cuts(rig, preloaded):
            if time.monotonic() > said + 5:
                said = time.monotonic()
                sys.stdout.write(f"{_counts(rig, begun)}\n")
                sys.stdout.flush()
    except LossError as error:
        status, word = 1, f"LOST: {error}"
    except (RigError, OSError) as error:
        status, word = 3, f"FAILED: {error}"
    except KeyboardInterrupt:
        status, word = 3, "interrupted"
    sys.stdout.write(f"{_counts(rig, begun)}: {word}\n")
    return status


def _cuts(rig: Rig, preloaded: Shim | None) -> Iterator[None]:
    """All the cuts, one directory after the other."""
    while rig.cuts < rig.options.cuts:
        if preloaded is not None and rig.options.variant in SHIMMED:
            cut_some = cut_recovery if rig.options.variant == "recovery" else cut_calls
            for _ in cut_some(rig, preloaded):
                yield
                if rig.cuts >= rig.options.cuts:
                    return
        else:
            rig.new_directory()
            for _ in range(min(rig.rng.randint(5, 40), rig.options.cuts - rig.cuts)):
                rig.cut_once()
                yield
            rig.verify()


def _counts(rig: Rig, begun: float) -> str:
    seconds = time.monotonic() - begun
    acknowledged = rig.acknowledged + rig.model.acknowledged_count
    text = (
        f"{rig.options.kind} {rig.options.variant}: {rig.cuts} cuts ({rig.cuts_in_recovery} during recovery, "
        f"{rig.calls_cut} at a call, {rig.kills} kills besides) in {seconds:.1f} s, {rig.cuts / seconds:.1f}/s, "
        f"{acknowledged} records acknowledged, {rig.directories} directories"
    )
    if rig.options.variant == "window":
        oldest = max(rig.oldest_lost_s, rig.model.oldest_lost_s)
        lost = rig.lost_in_window + rig.model.lost_count
        text += f", {lost} lost within the window, the oldest {oldest * 1000:.0f} ms old"
    return text


def _options() -> Options:
    parser = argparse.ArgumentParser(description="cuts the power under pylog", allow_abbrev=False)
    parser.add_argument("--fs", choices=sorted(powercut_disk.MAKE), default="ext4")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--variant", choices=VARIANTS, default="all")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--skip-sync", type=int, default=0, metavar="N", help="swallow every Nth fsync: the control")
    parser.add_argument("--flush-ms", type=int, default=20, help="of variant window")
    parser.add_argument("--slack-ms", type=int, default=200, help="what a flush may take beyond flush_ms")
    parser.add_argument("--keep", type=Path, help="keep a copy here of what a cut has left")
    given = parser.parse_args()
    return Options(
        kind=given.fs,
        cuts=given.cuts,
        variant=given.variant,
        seed=random.SystemRandom().getrandbits(32) if given.seed is None else given.seed,
        skip_sync=given.skip_sync,
        flush_ms=given.flush_ms,
        slack_ms=given.slack_ms,
        keep=given.keep,
    )


if __name__ == "__main__":
    sys.exit(main())
