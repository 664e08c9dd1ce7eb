"""The contract as code: every promise of ``mappedfile`` is a clause with a check that anybody can
run.

A check takes a *subject*, which is a way to open files in one mode, and an empty folder. It returns
if the clause holds. It raises ``Broken`` if the clause does not hold, and ``NotHere``, with a
reason, if this system, file system or subject cannot show it.
"""

from mappedfile.contract._clauses import CLAUSES, Broken, Clause, NotHere
from mappedfile.contract._subjects import LAYER, NATIVE, STDLIB, Subject

# These modules register their clauses, in the order of the contract.
# isort: off
from mappedfile.contract import (
    _lifetime,
    _coherence,
    _flush,
    _size,
    _truncation,
    _memory,
    _names,
    _input,
    _ways,
    _layer,
)

# isort: on

__all__ = ["CLAUSES", "LAYER", "NATIVE", "STDLIB", "Broken", "Clause", "NotHere", "Subject"]
