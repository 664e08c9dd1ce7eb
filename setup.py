"""Only what cffi's build needs; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["backends/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
