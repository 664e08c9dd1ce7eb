"""CPython's own tests of memory that processes share: multiprocessing.heap and shared_memory.

Children are forked, so that they have what stands for mmap. It is run by programs.py.
"""

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "fork")
