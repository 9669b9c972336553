"""Python pickles, told by walking their opcodes as the unpickler would, without running any.

A pickle is a program. That one is there is a fact; what its program would do is a scanner's
opinion: names that look harmless can be made to do harm, so that opinion never clears a file.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Final

MAX_READ: Final = 64 << 20
MAX_STEPS: Final = 2_000_000
# Text that is none ends after a few; who uploads waits for no more than these.
INLINE_STEPS: Final = 10_000
_MAX_NAMES: Final = 200

_CALLS: Final = frozenset({"REDUCE", "BUILD", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX"})
_PUSHES_TEXT: Final = frozenset(
    {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
)
# The extensions are names that only the reader knows.
_IMPORTS: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})
_MARK: Final = object()
# How pickletools begins to say that an argument, or the rest, is missing.
_EXHAUSTED: Final = ("no newline found", "pickle exhausted", "not enough data", "expected")
# What weights need. Anything else that a pickle names is worth a look.
_USUAL: Final = (
    "collections.OrderedDict",
    "torch._utils._rebuild",
    "torch._tensor._rebuild",
    "torch.storage._load_from_bytes",
    "torch.serialization._get_layout",
    "torch.nn.parameter",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
)
_USUAL_TORCH: Final = ("Storage", "Tensor", "Size", "device", "dtype")
_DANGEROUS_MODULES: Final = frozenset(
    {"os", "posix", "nt", "sys", "subprocess", "socket", "shutil", "runpy", "importlib", "ctypes"}
    | {"pty", "commands", "webbrowser", "asyncio", "multiprocessing", "threading", "code", "pdb"}
    | {"pickle", "_pickle", "marshal", "types", "operator", "functools", "builtins", "__builtin__"}
    | {"bdb", "timeit", "cProfile", "profile", "pip", "ensurepip", "httplib", "http", "urllib"}
    | {"requests", "aiohttp", "tempfile", "pathlib", "io", "platform", "signal", "inspect", "ast"}
)
_HARMLESS_BUILTINS: Final = frozenset(
    {"set", "frozenset", "dict", "list", "tuple", "int", "float", "complex", "bytearray", "slice"}
    | {"range", "bytes", "str", "bool", "object"}
)


@dataclass
class Walk:
    """How far the opcodes lead: `steps` good ones, what they import, whether they call."""

    steps: int = 0
    calls: bool = False
    stopped: bool = False  # at a STOP, with a value to return
    imports: list[str] = field(default_factory=list)
    why_ended: str = ""

    @property
    def runs(self) -> bool:
        """Whether an unpickler would import something and call it."""
        return self.calls and bool(self.imports)

    @property
    def cut_short(self) -> bool:
        """Whether there were more opcodes than are followed."""
        return self.why_ended.startswith("more than")

    @property
    def exhausted(self) -> bool:
        """Whether it was still good where the content ended."""
        return self.why_ended.startswith(_EXHAUSTED) or "but only" in self.why_ended

    @property
    def suspicious(self) -> list[str]:
        """The imports that weights do not need."""
        return [name for name in self.imports if not _usual(name)]

    @property
    def dangerous(self) -> list[str]:
        """The imports that can run programs, or cannot be told."""
        return [name for name in self.imports if _dangerous(name)]


class _Machine:
    """The unpickler's stack, of texts where they are known and of None where not."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> str:
        """Follow one opcode; return what it imports, '' mostly. LookupError: it cannot run."""
        if opcode.name in _IMPORTS:
            return self.imported(opcode.name, argument)
        if opcode.name in _PUSHES_TEXT:
            self.stack.append(argument)
        elif opcode.name == "MARK":
            self.stack.append(_MARK)
        elif opcode.name in _PUTS:
            key = len(self.memo) if opcode.name == "MEMOIZE" else argument
            self.memo[key if isinstance(key, int) else -1] = self.stack[-1]
        elif opcode.name in _GETS:
            self.stack.append(self.memo[argument if isinstance(argument, int) else -1])
        elif opcode.name == "DUP":
            self.stack.append(self.stack[-1])
        elif opcode.name == "POP":
            self.stack.pop()
        else:
            self.otherwise(opcode)
        return ""

    def imported(self, opcode: str, argument: object) -> str:
        """Push what is imported and return its name; ?.? where it cannot be told."""
        name = "?.?"
        if opcode == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            if isinstance(module, str) and isinstance(attribute, str):
                name = f"{module}.{attribute}"
        elif opcode in {"GLOBAL", "INST"}:
            if opcode == "INST":
                self.pop_to_mark()
            name = ".".join(str(argument).split(" ", 1))
        self.stack.append(None)
        return name

    def otherwise(self, opcode: pickletools.OpcodeInfo) -> None:
        """Do to the stack what the opcode's own description says."""
        before, after = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in before:
            self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.pop()
        self.stack.extend(None for _ in after)

    def pop(self) -> object:
        value = self.stack.pop()
        if value is _MARK:
            raise LookupError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> None:
        while self.stack.pop() is not _MARK:
            pass


def walk(content: bytes, steps: int | None = None) -> Walk:
    """Follow the opcodes from the first byte as far as they go, at most `steps` of them."""
    most = MAX_STEPS if steps is None else steps
    found, machine = Walk(), _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if found.steps >= most:
                found.why_ended = f"more than {most} opcodes"
                break
            imported = machine.step(opcode, argument)
            found.steps += 1
            if imported and len(found.imports) < _MAX_NAMES and imported not in found.imports:
                found.imports.append(imported)
            found.calls = found.calls or opcode.name in _CALLS
            found.stopped = opcode.name == "STOP"
    # A broken tail does not undo what ran before it: what was found stays found.
    except (ValueError, LookupError, OverflowError, MemoryError, RecursionError) as error:
        found.why_ended = str(error)[:100] or type(error).__name__
    return found


def _usual(name: str) -> bool:
    if name.startswith("torch.") and name.count(".") == 1:
        return name.endswith(_USUAL_TORCH) or name.split(".")[1].islower()
    module, _, attribute = name.rpartition(".")
    if module in {"builtins", "__builtin__"}:
        return attribute in _HARMLESS_BUILTINS
    return name.startswith(_USUAL)


def _dangerous(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module in {"builtins", "__builtin__"} and attribute in _HARMLESS_BUILTINS:
        return False
    return name.partition(".")[0] in {*_DANGEROUS_MODULES, "?"}
