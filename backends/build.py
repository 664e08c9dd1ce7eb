"""The cffi recipe for ``mappedfile._native``: the declarations of the headers over the source of one system."""

import os
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = os.path.relpath(Path(__file__).parent)
WINDOWS = sysconfig.get_platform().startswith("win")
HEADERS = ("search.h", "backend.h")

ffibuilder = FFI()
ffibuilder.cdef(f"typedef {'wchar_t' if WINDOWS else 'char'} mf_char; typedef uintptr_t mf_word;")
for header in HEADERS:
    ffibuilder.cdef(Path(HERE, header).read_text("utf-8"))
ffibuilder.set_source(
    "mappedfile._native",
    '#include "native.h"',
    sources=[f"{HERE}/{'windows' if WINDOWS else 'posix'}.c", f"{HERE}/search.c", f"{HERE}/table.c"],
    depends=[f"{HERE}/{name}" for name in (*HEADERS, "native.h", "search_loop.h")],
    include_dirs=[HERE],
    py_limited_api=True,
)
