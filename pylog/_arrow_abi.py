"""The structs of the Arrow C data interface, as ctypes sees them, and the capsules that carry them.

    struct            bytes  fields
    ArrowSchema       72     format, name, metadata, flags, n_children, children, dictionary, release, private_data
    ArrowArray        80     length, null_count, offset, n_buffers, n_children, buffers, children, dictionary, release,
                             private_data
    ArrowArrayStream  40     get_schema, get_next, get_last_error, release, private_data

A struct whose release is null was released, or taken by another. Our own structs are released by C code, see
csrc/python/arrow_capsule.h; Python only fills them in and reads those of others.
"""

import ctypes
from typing import Any, Final

NULLABLE: Final = 2  # ArrowSchema.flags

SCHEMA_CAPSULE: Final = b"arrow_schema"
ARRAY_CAPSULE: Final = b"arrow_array"
STREAM_CAPSULE: Final = b"arrow_array_stream"


class ArrowSchema(ctypes.Structure):
    """The type of an array."""

    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.POINTER(ctypes.c_void_p)),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class ArrowArray(ctypes.Structure):
    """The buffers of an array."""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.POINTER(ctypes.c_void_p)),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


class ArrowArrayStream(ctypes.Structure):
    """A source of arrays of one type."""

    _fields_ = (
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


# Callbacks, their structs given by address: a struct's memory belongs to whoever calls.
RELEASE_FUNCTION: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
STREAM_FUNCTION: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
ERROR_FUNCTION: Final = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)

_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def capsule_address(capsule: object, name: bytes) -> int:
    """The address of the struct in a capsule; ValueError where the object is no such capsule."""
    address: int = _capsule_pointer(capsule, name)
    return address


def release(struct: Any) -> None:
    """Release a struct that is ours to release, unless that has been done."""
    if struct.release:
        RELEASE_FUNCTION(struct.release)(ctypes.addressof(struct))
