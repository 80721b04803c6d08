"""The two compiled modules; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).parent / "csrc"))

from build_ffi import compiler_flags  # beside the C sources

compile_args, link_args = compiler_flags()
sources = sorted(str(path) for path in Path("csrc/python").glob("*.c"))

setup(
    cffi_modules=["csrc/build_ffi.py:ffi"],
    ext_modules=[
        Extension(
            "pylog._objects",
            sources=[*sources, "csrc/murmur2.c", "csrc/record.c"],
            include_dirs=["csrc"],
            depends=[str(path) for path in [*Path("csrc").glob("*.h"), *Path("csrc/python").glob("*.h")]],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            undef_macros=["NDEBUG"],
        )
    ],
)
