"""CPython's tests of shared memory in multiprocessing, which uses mmap.

Children are forked, so that they keep the replacement for mmap. programs.py runs this file.
"""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "fork")
