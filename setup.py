"""Only what the C parts need; everything else is in pyproject.toml."""

import sysconfig

from setuptools import Extension, setup

# Free-threaded Pythons have no limited API before 3.15. The one they have since, abi3t, knows no
# struct that begins with PyObject_HEAD, and ours do. They get a wheel each.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["backends/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "mappedfile._memory",
            [
                "backends/memory.c",
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
            # Their names are their own: programs have functions called move, too.
            extra_compile_args=[]
            if sysconfig.get_platform().startswith("win")
            else ["-fvisibility=hidden"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")] if LIMITED_API else [],
            py_limited_api=LIMITED_API,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
