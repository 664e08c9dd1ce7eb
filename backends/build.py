"""The cffi recipe for ``mappedfile._native``, with the C source of one system."""

import os
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = os.path.relpath(Path(__file__).parent)
WINDOWS = sysconfig.get_platform().startswith("win")
SYSTEM = "windows" if WINDOWS else "posix"
HEADERS = ("search", "backend")
PRIVATE_HEADERS = ("native", f"{SYSTEM}_private", "search_loop")

ffibuilder = FFI()
ffibuilder.cdef(f"typedef {'wchar_t' if WINDOWS else 'char'} mf_char; typedef uintptr_t mf_word;")
for header in HEADERS:
    ffibuilder.cdef(Path(HERE, f"{header}.h").read_text("utf-8"))
ffibuilder.set_source(
    "mappedfile._native",
    '#include "native.h"',
    sources=[f"{HERE}/{name}.c" for name in (SYSTEM, f"{SYSTEM}_guard", "search", "table")],
    depends=[f"{HERE}/{name}.h" for name in HEADERS + PRIVATE_HEADERS],
    include_dirs=[HERE],
    py_limited_api=True,
)
