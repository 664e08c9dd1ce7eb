"""Only what the C parts need; everything else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import Extension, setup

# access.c keeps to the limited API, which free-threaded Pythons do not have; and PyPy is quick without it.
LIMITED_API = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["backends/build.py:ffibuilder"],
    ext_modules=[
        Extension(
            "mappedfile._access",
            ["backends/access.c"],
            depends=["backends/backend.h", "backends/native.h", "backends/search.h"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            py_limited_api=True,
        )
    ]
    if LIMITED_API
    else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
