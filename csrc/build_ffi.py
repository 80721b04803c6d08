"""Builds pylog._core: cffi reads what stands between the cdef marks of pylog.h, the C compiler the whole header."""

import os
import re
import sys
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def declarations() -> str:
    """The text of pylog.h between its marks."""
    text = (HERE / "pylog.h").read_text()
    found = re.search(r"/\* cdef:begin \*/(.*)/\* cdef:end \*/", text, re.S)
    if not found:
        sys.exit("csrc/pylog.h has no cdef marks")
    return found[1]


def compiler_flags() -> tuple[list[str], list[str]]:
    """Compiler and linker flags; PYLOG_SANITIZE=address,undefined builds with sanitizers."""
    compile_args = ["-std=gnu11", "-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
    link_args = ["-pthread"]
    if sanitize := os.environ.get("PYLOG_SANITIZE"):
        flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g"]
        compile_args += [*flags, "-fno-wrapv", "-fno-sanitize-recover=all"]
        link_args += flags
    return compile_args, link_args


ffi = FFI()
ffi.cdef(declarations())
_compile_args, _link_args = compiler_flags()
ffi.set_source(
    "pylog._core",
    '#include "pylog.h"',
    sources=[os.path.relpath(path, ROOT) for path in sorted(HERE.glob("*.c"))],
    include_dirs=[os.path.relpath(HERE, ROOT)],
    depends=[os.path.relpath(path, ROOT) for path in sorted(HERE.glob("*.h"))],
    extra_compile_args=_compile_args,
    extra_link_args=_link_args,
    undef_macros=["NDEBUG"],  # Python's own flags would switch the assertions off
)
