"""The extension modules. Everything else is in pyproject.toml."""

import os
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

# The stable ABI: abi3, or abi3t without a GIL. Free-threaded Pythons before 3.15 have none.
# A Python with a GIL loads extensions for abi3t too: MAPPEDFILE_ABI3T builds one, to test it.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
if sys.version_info >= (3, 15) and (FREE_THREADED or "MAPPEDFILE_ABI3T" in os.environ):
    FIRST, MACROS = "cp315", [("Py_TARGET_ABI3T", "0x030f0000")]
elif FREE_THREADED:
    FIRST, MACROS = "", []
else:
    FIRST, MACROS = "cp311", [("Py_LIMITED_API", "0x030b0000")]


class Wheel(bdist_wheel):
    """A wheel for abi3t is not for abi3 as well: with a GIL the one for abi3 is faster."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return python, abi.replace("abi3.abi3t", "abi3t"), platform


setup(
    cffi_modules=["backends/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "mappedfile._memory",
            [
                "backends/memory.c",
                "backends/checks.c",
                "backends/storage.c",
                "backends/window.c",
                "backends/stream.c",
                "backends/mmap.c",
            ],
            depends=[
                "backends/backend.h",
                "backends/memory.h",
                "backends/native.h",
                "backends/search.h",
            ],
            # Hide the names of the C functions: other libraries may have the same names.
            extra_compile_args=[]
            if sysconfig.get_platform().startswith("win")
            else ["-fvisibility=hidden"],
            define_macros=MACROS,
            py_limited_api=bool(FIRST),
        )
    ],
    cmdclass={"bdist_wheel": Wheel},
    options={"bdist_wheel": {"py_limited_api": FIRST}} if FIRST else {},
)
