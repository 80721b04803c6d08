"""Includes and imports point downward only: the layers of csrc/ and of pylog/, as tables, and a check of every file.

python tools/check_layers.py [CHECKOUT]   prints each include, import or call that breaks a layer; exit status 1 if any.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# From the bottom up. A file includes headers of lower layers, and those of its own concept (log_cut.c that of log), not
# others of its line. "pylog" is the public header: declarations only.
C_LAYERS = (
    ("bytes", "crc32c", "failpoint", "murmur2"),
    ("record",),
    ("batch",),
    ("batch_walk",),
    ("pylog",),
    ("error",),
    ("columns", "vfs"),
    ("file_name",),
    ("fork", "mapping", "index_file", "producer_state", "shared"),
    ("txn_index", "bell"),
    ("segment",),
    ("log",),
)
FORMAT_CONCEPTS = {"bytes", "crc32c", "murmur2", "record", "batch", "batch_walk"}
# What the CPU can do has no other way to be asked.
FORMAT_EXCEPTIONS = {"crc32c_arm64.c": {"sys/auxv.h", "asm/hwcap.h"}}
SYSTEM_CALLERS = {"vfs_guard.c", "vfs_posix.c", "bell.c"}
SYSTEM_HEADERS = re.compile(r"(sys|linux|asm|net|arpa)/.*|(unistd|fcntl|dirent|signal|poll|spawn|termios)\.h")
ALLOCATIONS = "malloc calloc realloc reallocarray aligned_alloc posix_memalign free strdup strndup alloca"
SYSTEM_CALLS = (
    "open openat creat close read pread preadv readv write pwrite pwritev writev lseek mmap munmap mremap msync "
    "madvise fsync fdatasync sync_file_range fallocate posix_fallocate ftruncate truncate rename renameat unlink "
    "unlinkat link linkat remove mkdir mkdirat rmdir opendir fdopendir readdir closedir stat fstat fstatat lstat "
    "statx flock fcntl ioctl syscall fork execve fopen fdopen freopen fclose fread fwrite fseek ftell fflush "
    "tmpfile getenv"
)

# From the bottom up; a package stands for all its modules. Imports under TYPE_CHECKING are only names.
PYTHON_LAYERS = (
    ("_core", "_objects", "_errors"),
    ("_native",),
    (
        "_types",
        "_closing",
        "_open_logs",
        "_locks",
        "_serializers",
        "_compression",
        "_background",
        "_async_wait",
        "_arrow_abi",
        "_encoder",
    ),
    ("_config", "_directory", "_membership", "_arrow_import"),
    ("_arrow",),
    ("_columns", "_column_input", "_following"),
    ("_partition",),
    ("_topic", "_turns", "_future", "_flusher", "_reading"),
    ("_routing",),
    ("_groups",),
    ("_producer", "_consumer", "_admin"),
    ("_queue", "_workers"),
    ("_log",),
    ("__init__",),
    ("aio", "kafka"),
    ("pytest_plugin",),
    ("_dump",),
    ("_verify",),
    ("_demo",),
    ("cli",),
    ("__main__",),
)
COMPILED = {"_core", "_objects"}
COMPILED_IMPORTER = "_native"


def _levels(layers: tuple[tuple[str, ...], ...]) -> dict[str, int]:
    return {name: level for level, names in enumerate(layers) for name in names}


C_LEVELS = _levels(C_LAYERS)
PYTHON_LEVELS = _levels(PYTHON_LAYERS)


def _code(text: str) -> str:
    """C without comments and strings, its lines where they were; includes keep their names."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    text = re.sub(r"/\*.*?\*/|//[^\n]*", blank, text, flags=re.S)
    return re.sub(r'(?<!include )"(?:\\.|[^"\\\n])*"', '""', text)


def _includes(code: str) -> Iterator[tuple[int, str, bool]]:
    """(line number, name, is it the project's own)."""
    for number, line in enumerate(code.splitlines(), 1):
        if found := re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line):
            yield number, found[2], found[1] == '"'


def _calls(code: str, names: str) -> Iterator[tuple[int, str]]:
    call = re.compile(rf"(?<![\w.>])({'|'.join(names.split())})\s*\(")
    for number, line in enumerate(code.splitlines(), 1):
        for found in call.finditer(line):
            yield number, found[1]


def concept(name: str) -> str | None:
    """The concept in C_LAYERS that a file of csrc belongs to: log_cut.c to log, batch_walk.c to batch_walk."""
    stem = Path(name).stem
    while stem not in C_LEVELS:
        stem, underscore, _ = stem.rpartition("_")
        if not underscore:
            return None
    return stem


def _engine_file(path: Path) -> Iterator[tuple[int, str]]:
    own = concept(path.name)
    if own is None:
        yield 1, "has no layer: name its concept in C_LAYERS"
        return
    code = _code(path.read_text())
    is_format = own in FORMAT_CONCEPTS
    for number, name, is_ours in _includes(code):
        if name == "Python.h":
            yield number, "includes Python.h: only csrc/python does"
        elif is_ours:
            other = concept(name)
            if other is None or "/" in name:
                yield number, f"includes {name}, which is no header of the engine"
            elif other != own and C_LEVELS[other] >= C_LEVELS[own]:
                yield number, f"includes {name}: {own} lies not above {other}"
            elif is_format and other not in FORMAT_CONCEPTS:
                yield number, f"includes {name}: format files stand alone"
        elif is_format and name in {"stdio.h", "stdlib.h"}:
            yield number, f"includes {name}: format files neither allocate nor do I/O"
        elif (
            SYSTEM_HEADERS.fullmatch(name)
            and path.name not in SYSTEM_CALLERS
            and name not in FORMAT_EXCEPTIONS.get(path.name, set())
        ):
            yield number, f"includes {name}: system calls are made in {' and '.join(sorted(SYSTEM_CALLERS))}"
    if is_format:
        for number, name in _calls(code, ALLOCATIONS):
            yield number, f"calls {name}: format files do not allocate"
    if path.name not in SYSTEM_CALLERS:
        for number, name in _calls(code, SYSTEM_CALLS):
            yield number, f"calls {name}: system calls are made in {' and '.join(sorted(SYSTEM_CALLERS))}"


def _binding_file(path: Path) -> Iterator[tuple[int, str]]:
    """The extension module: its own headers, the format files it encodes and decodes with, and the public structs."""
    code = _code(path.read_text())
    for number, name, is_ours in _includes(code):
        if is_ours and not (path.parent / name).resolve().is_file():
            yield number, f"includes {name}, which is not there"
        elif is_ours and "/" in name and concept(name) not in FORMAT_CONCEPTS | {"pylog"}:
            yield number, f"includes {name}: of the engine only the format files and pylog.h"
        elif SYSTEM_HEADERS.fullmatch(name):
            yield number, f"includes {name}: system calls are made in csrc/vfs_posix.c"
    for number, name in _calls(code, SYSTEM_CALLS):
        yield number, f"calls {name}: system calls are made in csrc/vfs_posix.c"


def _module(path: Path, package: Path) -> str:
    """The name in PYTHON_LAYERS that a file of pylog belongs to."""
    return path.relative_to(package).with_suffix("").parts[0]


def _checked_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not _checked_types_only(child):
            yield child
            yield from _runtime_nodes(child)


def _imported(tree: ast.AST, path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line number, module of pylog) for each import, those inside functions too."""
    depth = len(path.relative_to(package).parts) - 1  # 0 for a module of pylog itself
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, _, rest = alias.name.partition(".")
                if first == "pylog":
                    yield node.lineno, rest.split(".")[0] or "__init__"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 0 and module.split(".")[0] == "pylog":
                module = module.partition(".")[2]
            elif node.level != depth + 1:
                continue  # another library's, or a neighbour's within a package
            names = [module.split(".")[0]] if module else [alias.name for alias in node.names]
            for name in names:
                is_module = name in PYTHON_LEVELS or (package / f"{name}.py").is_file()
                yield node.lineno, name if is_module else "__init__"


def _python_file(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    own = _module(path, package)
    if own not in PYTHON_LEVELS:
        yield 1, "has no layer: name it in PYTHON_LAYERS"
        return
    for number, other in _imported(ast.parse(path.read_text()), path, package):
        if other in COMPILED and own != COMPILED_IMPORTER:
            yield number, f"imports {other}: only {COMPILED_IMPORTER} does"
        elif other not in PYTHON_LEVELS:
            yield number, f"imports {other}, which has no layer: name it in PYTHON_LAYERS"
        elif other != own and PYTHON_LEVELS[other] >= PYTHON_LEVELS[own]:
            yield number, f"imports {other}: {own} lies not above it"


def findings(root: Path = ROOT) -> list[str]:
    """Everything that breaks a layer, as `file:line: what`."""
    found: list[str] = []

    def add(path: Path, problems: Iterator[tuple[int, str]]) -> None:
        found.extend(f"{path.relative_to(root)}:{number}: {what}" for number, what in problems)

    for path in sorted((root / "csrc").glob("*.[ch]")):
        add(path, _engine_file(path))
    for path in sorted((root / "csrc" / "python").glob("*.[ch]")):
        add(path, _binding_file(path))
    for path in sorted((root / "pylog").rglob("*.py")):
        add(path, _python_file(path, root / "pylog"))
    return found


def main() -> int:
    """Print the findings."""
    found = findings(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    sys.stdout.write("".join(f"{line}\n" for line in found) or "layers: every include and import points downward\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
