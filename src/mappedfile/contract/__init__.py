"""The contract as code: what ``mappedfile`` promises, clause by clause, as checks that anybody can
run.

A check takes a *subject*, which is a way to open files in one mode, and a folder it may use as it
likes. It returns when the clause holds, raises ``Broken`` when it does not, and ``NotHere`` when
this system, file system or subject cannot show it, with the reason.
"""

from mappedfile.contract._clauses import CLAUSES, Broken, Clause, NotHere
from mappedfile.contract._subjects import LAYER, NATIVE, STDLIB, Subject

# They register their clauses, in the order of the contract.
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
