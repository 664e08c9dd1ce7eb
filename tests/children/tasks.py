"""Tasks of a program, which its command line names.

    task = Tasks()

    @task
    def fork(folder: str) -> None: ...

    if __name__ == "__main__":
        task.main()

``python -m children.PROGRAM fork FOLDER`` calls the function with the arguments, as text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

Task = TypeVar("Task", bound=Callable[..., object])


class Tasks:
    """A decorator that registers functions by name."""

    def __init__(self) -> None:
        self.known: dict[str, Callable[..., object]] = {}

    def __call__(self, function: Task) -> Task:
        assert function.__name__ not in self.known
        self.known[function.__name__] = function
        return function

    def main(self) -> None:
        """Run the task that the command line names."""
        name, *arguments = sys.argv[1:] or [""]
        if name not in self.known:
            raise SystemExit(f"no such task: {name!r}; there are {', '.join(self.known)}")
        self.known[name](*arguments)
