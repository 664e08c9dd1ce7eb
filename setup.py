"""The extension modules. Everything else is in pyproject.toml."""

import sysconfig

from setuptools import Extension, setup

# Free-threaded Pythons before 3.15 have no limited API. Later ones have abi3t, which does not allow
# structs that begin with PyObject_HEAD, as ours do. So each of them gets its own wheel.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

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
            define_macros=[("Py_LIMITED_API", "0x030b0000")] if LIMITED_API else [],
            py_limited_api=LIMITED_API,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
