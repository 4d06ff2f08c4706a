"""Machine: what this machine can do at most, measured once and kept in the cache folder."""

from __future__ import annotations

import ctypes
import json
import logging
import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sparsecompile.codegen.cache import Cache
from sparsecompile.codegen.cpp.build import load_built, open_library
from sparsecompile.codegen.cpp.compiler import Compiler, find_compiler
from sparsecompile.codegen.cpp.text import read
from sparsecompile.codegen.host import host_cpu
from sparsecompile.codegen.tuning.workbench import Limits
from sparsecompile.errors import SparseCompileError
from sparsecompile.kernels.spec import digest
from sparsecompile.kernels.target import Target

logger = logging.getLogger("sparsecompile")

CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
LARGEST_BUFFER = 512 << 20
SMALLEST_BUFFER = 64 << 20
BANDWIDTH_RUNS = 6
READ_RUNS = 10
RATE_RUNS = 10
RATE_SECONDS = 0.01


@dataclass(frozen=True)
class Machine:
    """Limits of this machine, each the best of several runs.

    Attributes:
        cpu: name of the CPU.
        threads: threads that the limits below are for, unless they say otherwise.
        read_bandwidth: bytes a second read from memory by all threads.
        read_bandwidth_one: bytes a second read from memory by one thread.
        l2_bytes: bytes of the second-level cache that one core sees.
        llc_bytes: bytes of the last-level cache.
        float32_rate: floating-point operations a second in float32; a multiply-add is two.
        bfloat16_rate: the same with bfloat16 factors and float32 sums.
        int8_rate: the same with 8-bit integer factors and 32-bit sums.
        float32_instruction: what reached `float32_rate`, such as `avx512 fma`.
        bfloat16_instruction: what reached `bfloat16_rate`, such as `amx tdpbf16ps`.
        int8_instruction: what reached `int8_rate`, such as `vpdpbusd`.
    """

    cpu: str
    threads: int
    read_bandwidth: float
    read_bandwidth_one: float
    l2_bytes: int
    llc_bytes: int
    float32_rate: float
    bfloat16_rate: float
    int8_rate: float
    float32_instruction: str
    bfloat16_instruction: str
    int8_instruction: str

    @property
    def limits(self) -> Limits:
        """For the cost model."""
        rates = {"float32": self.float32_rate, "bfloat16": self.bfloat16_rate}
        return Limits(self.read_bandwidth, {**rates, "int8": self.int8_rate})


_known: dict[int, Machine] = {}
"""By threads: what this process has measured or read."""
_measuring = threading.Lock()


def measure_machine(threads: int, *, again: bool = False) -> Machine:
    """The limits for a number of threads: from this process, the record on disk, or measured.

    Measuring takes one to three seconds and up to 512 MiB of memory; a record is valid for the
    CPU, the compiler and the number of threads that it was made with.

    Args:
        threads: as of `torch.get_num_threads()`.
        again: measure, whatever is known, such as when the machine was busy the last time.

    Raises:
        ValueError: `threads` is less than 1.
        BuildError: no compiler, or it failed.
        CacheError: the cache folder cannot be used.
        SparseCompileError: there is not enough memory to measure.
    """
    if threads < 1:
        raise ValueError(f"{threads} threads cannot be measured")
    with _measuring:
        if again or threads not in _known:
            _known[threads] = _read_or_measure(threads, again)
        return _known[threads]


def known_machine(threads: int) -> Machine | None:
    """The limits as far as they are known, from this process or the record on disk; else None.

    Raises:
        BuildError: no compiler.
        CacheError: the cache folder cannot be used.
    """
    with _measuring:
        return _known.get(threads) or _recorded(Cache().read(_entry(threads)), threads)


def read_bandwidth(nbytes: int, threads: int) -> float:
    """Bytes a second at which memory of this size is read again and again, the best of many times.

    What fits caches is found there.

    Raises:
        BuildError: no compiler, or it failed.
        CacheError: the cache folder cannot be used.
        SparseCompileError: there is not enough memory.
    """
    found: float = _library().sc_read_bandwidth(nbytes, threads, READ_RUNS)
    if found > 0:
        return found
    raise SparseCompileError(
        f"reading {nbytes} bytes cannot be measured: the system gives no memory for them; end "
        "other programs and try again"
    )


def _entry(threads: int) -> str:
    """Name of the record in the cache folder."""
    compiler = find_compiler()
    flags = compiler.flags(Target.host())
    key = digest(_text(), host_cpu(), *compiler.identity, *flags, str(threads))
    return f"machine-{key}.json"


def _read_or_measure(threads: int, again: bool) -> Machine:
    store, name = Cache(), _entry(threads)
    known = None if again else _recorded(store.read(name), threads)
    if known is not None:
        return known
    # Two that measure at the same time would each see half a machine.
    with store.lock(f"machine-{digest(host_cpu())}"):
        known = None if again else _recorded(store.read(name), threads)
        if known is not None:
            return known
        machine = _measure(threads)
        store.write(name, json.dumps(asdict(machine), indent=2).encode())
    return machine


def _recorded(content: bytes | None, threads: int) -> Machine | None:
    """The record, or None where there is none or it cannot be one."""
    try:
        facts = json.loads(content or b"")
        machine = Machine(**facts)
    except (ValueError, TypeError):
        return None
    values = {f.name: getattr(machine, f.name) for f in fields(Machine)}
    plausible = machine.threads == threads and all(
        isinstance(value, str if name.endswith(("cpu", "instruction")) else (int, float))
        and bool(value)
        and (isinstance(value, str) or value > 0)
        for name, value in values.items()
    )
    return machine if plausible else None


def _measure(threads: int) -> Machine:
    started = time.perf_counter()
    library = _library()
    built = time.perf_counter()
    l2, llc = cache_sizes()
    float32 = _rate(library.sc_float32_rate, threads)
    bfloat16 = _rate(library.sc_bfloat16_rate, threads)
    int8 = _rate(library.sc_int8_rate, threads)
    bandwidth = _bandwidth(library, llc, threads)
    machine = Machine(
        cpu=_cpu_name(),
        threads=threads,
        read_bandwidth=bandwidth,
        read_bandwidth_one=bandwidth if threads == 1 else _bandwidth(library, llc, 1),
        l2_bytes=l2,
        llc_bytes=llc,
        float32_rate=float32.per_second,
        bfloat16_rate=bfloat16.per_second,
        int8_rate=int8.per_second,
        float32_instruction=float32.instruction.decode(),
        bfloat16_instruction=bfloat16.instruction.decode(),
        int8_instruction=int8.instruction.decode(),
    )
    times = (built - started, time.perf_counter() - built)
    logger.info("built in %.1f s and measured in %.1f s: %s", *times, machine)
    return machine


def _bandwidth(library: Any, llc: int, threads: int) -> float:
    """Bytes a second from a buffer of eight times the last-level cache, if there is the memory.

    Of four times that, a fifth was still found in the cache; and a virtual machine may be told of
    less cache than it has.
    """
    nbytes = min(max(8 * llc, 4 * SMALLEST_BUFFER), LARGEST_BUFFER)
    while nbytes >= SMALLEST_BUFFER:
        found: float = library.sc_read_bandwidth(nbytes, threads, BANDWIDTH_RUNS)
        if found > 0:
            return found
        nbytes //= 2
    raise SparseCompileError(
        f"the read bandwidth cannot be measured: the system gives no {SMALLEST_BUFFER >> 20} MiB "
        "of memory; end other programs and try again"
    )


class _Rate(ctypes.Structure):
    """`SCRate` of `text/machine/rates.cpp`, field by field."""

    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("per_second", ctypes.c_double),
        ("instruction", ctypes.c_char_p),
    )


def _rate(function: Any, threads: int) -> _Rate:
    rate = _Rate()
    function(threads, RATE_RUNS, RATE_SECONDS, ctypes.byref(rate))
    return rate


def _library() -> Any:
    return load_built("machine", _text(), _flags, _open)


def _text() -> str:
    return read("machine/bandwidth.cpp") + "\n" + read("machine/rates.cpp")


def _flags(compiler: Compiler) -> tuple[str, ...]:
    return compiler.flags(Target.host())


def _open(path: Path) -> Any:
    library = open_library(path)
    library.sc_read_bandwidth.argtypes = (ctypes.c_int64,) * 3
    library.sc_read_bandwidth.restype = ctypes.c_double
    rate = (ctypes.c_int64, ctypes.c_int64, ctypes.c_double, ctypes.POINTER(_Rate))
    for function in (library.sc_float32_rate, library.sc_bfloat16_rate, library.sc_int8_rate):
        function.argtypes = rate
        function.restype = None
    return library


def cache_sizes(folder: Path = CPU_CACHES) -> tuple[int, int]:
    """Bytes of the second-level cache and of the last level, as the first core sees them.

    Args:
        folder: what Linux says about the caches; where it says nothing 1 MiB and 32 MiB are
            assumed.
    """
    sizes: dict[int, int] = {}
    for index in folder.glob("index*"):
        try:
            kind = (index / "type").read_text(encoding="ascii").strip()
            level = int((index / "level").read_text(encoding="ascii"))
            size = _bytes((index / "size").read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size > 0:
            sizes[level] = size
    l2 = sizes.get(2, 1 << 20)
    return l2, sizes[max(sizes)] if sizes and max(sizes) >= 2 else 32 << 20


def _bytes(text: str) -> int:
    """`107520K` in bytes."""
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * unit


def _cpu_name() -> str:
    for line in host_cpu().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
