"""Makes the checkout's ``benchmarks`` importable, behind everything installed: pylog itself is the installed one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
