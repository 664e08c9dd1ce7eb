"""N · Names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile
from mappedfile import GRANULARITY
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import clause, equal, raises, true
from mappedfile.contract._lifetime import pattern

if TYPE_CHECKING:
    from mappedfile.contract._subjects import Subject

CONTENT = pattern(GRANULARITY + 100)


class Opened:
    """A file of the subject with a view in use; with its mapped file open, or already closed."""

    def __init__(self, subject: Subject, path: Path, *, closed: bool) -> None:
        self.subject = subject
        self.file = subject.create(path, CONTENT)
        self.view = self.file.view(GRANULARITY, 100)
        equal(CONTENT, self.file[:], "the bytes of the file")
        equal(CONTENT[GRANULARITY:], self.view[:], "the bytes of the view")
        if closed:
            self.file.close()

    def works(self, when: str) -> None:
        """Break the clause unless every open object can still be used."""
        equal(CONTENT[GRANULARITY + 1 :], self.view[1:], f"the bytes of the view, {when}")
        if self.subject.writable:
            old = self.view[0]
            self.view[0] = old ^ 0xFF
            equal(old ^ 0xFF, self.view[0], f"a byte that was written, {when}")
        equal(None, self.view.flush(durable=False), f"what flush(durable=False) returns, {when}")
        if not self.file.closed:
            equal(CONTENT[:GRANULARITY], self.file[:GRANULARITY], f"the bytes of the file, {when}")
            with self.file.view(0, 10) as another:
                equal(CONTENT[:10], another[:], f"a view made {when}")
            equal(None, self.file.flush(), f"what flush() returns, {when}")

    def content(self) -> bytes:
        """Return the content that the file should have now."""
        first = self.view[0] if self.subject.shared else CONTENT[GRANULARITY]
        return CONTENT[:GRANULARITY] + bytes([first]) + CONTENT[GRANULARITY + 1 :]

    def close(self) -> None:
        """Close the open objects."""
        self.view.close()
        self.file.close()


def unchanged(path: Path, opened: Any, when: str) -> None:
    """Break the clause unless the file has its old name and content."""
    true(path.exists(), f"the name is still there {when}")
    equal(opened.content(), path.read_bytes(), f"the bytes of the file {when}")


# N1


@clause("N1")
def N1(subject: Subject, folder: Path) -> None:
    """Others can rename a mapped file, also from other processes, and also while its `MappedFile`
    is open."""
    for closed in (False, True):
        opened = Opened(subject, folder / "old", closed=closed)
        for rename, who in ((rename_here, "here"), (rename_elsewhere, "by another process")):
            rename(subject, folder)
            when = f"after it was renamed {who}, {'closed' if closed else 'open'}"
            true(not (folder / "old").exists(), f"the old name is gone {when}")
            opened.works(when)
            equal(
                opened.content(),
                (folder / "new").read_bytes(),
                f"the bytes under the new name, {when}",
            )
            os.rename(folder / "new", folder / "old")
        opened.close()
        os.unlink(folder / "old")


def rename_here(_: Subject, folder: Path) -> None:
    """N1: rename the file."""
    os.rename(folder / "old", folder / "new")


def rename_elsewhere(subject: Subject, folder: Path) -> None:
    """N1: another process renames the file."""
    in_child(rename_here, subject, folder)


# N2


@clause("N2")
def N2(subject: Subject, folder: Path) -> None:
    """Others can delete a mapped file. The name is gone at once (POSIX, Windows with POSIX delete
    semantics) or when the last view is unmapped (other Windows file systems). Views go on working.
    Allowed on Windows: `PermissionError`, nothing changed."""
    path = folder / "file"
    for closed in (False, True):
        for delete, who in ((delete_here, "here"), (delete_elsewhere, "by another process")):
            opened = Opened(subject, path, closed=closed)
            delete(subject, folder)
            refused = (folder / "refused").exists()
            when = f"after it was deleted {who}, {'closed' if closed else 'open'}"
            if refused:
                true(
                    not mappedfile.capabilities().delete_mapped,
                    "a file that is mapped can be deleted",
                )
                unchanged(path, opened, "after PermissionError")
                (folder / "refused").unlink()
            elif mappedfile.capabilities().delete_mapped:
                true(not os.path.lexists(path), f"the name is gone at once {when}")
                if delete is delete_here:
                    path.write_bytes(b"another file")  # and free
            opened.works(when)
            opened.close()
            if refused:
                os.unlink(path)
            elif mappedfile.capabilities().delete_mapped and delete is delete_here:
                equal(b"another file", path.read_bytes(), "a new file under the name")
                os.unlink(path)
            true(not os.path.lexists(path), f"the name is gone when everything is closed, {when}")


def delete_here(_: Subject, folder: Path) -> None:
    """N2: delete the file, or record that it was refused."""
    try:
        os.unlink(folder / "file")
    except PermissionError:
        (folder / "refused").touch()


def delete_elsewhere(subject: Subject, folder: Path) -> None:
    """N2: another process deletes the file."""
    in_child(delete_here, subject, folder)


# N3


@clause("N3")
def N3(subject: Subject, folder: Path) -> None:
    """Others can replace a mapped file by a rename, and views keep the old content (POSIX). Allowed
    on Windows: `PermissionError`, nothing changed."""
    path = folder / "file"
    new = pattern(GRANULARITY)[::-1]
    for closed in (False, True):
        for replace, who in ((replace_here, "here"), (replace_elsewhere, "by another process")):
            opened = Opened(subject, path, closed=closed)
            (folder / "new").write_bytes(new)
            replace(subject, folder)
            when = f"after it was replaced {who}, {'closed' if closed else 'open'}"
            if (folder / "refused").exists():
                true(
                    not mappedfile.capabilities().replace_mapped,
                    "a file that is mapped can be replaced",
                )
                (folder / "refused").unlink()
                unchanged(path, opened, "after PermissionError")
                equal(
                    new,
                    (folder / "new").read_bytes(),
                    "the bytes of the file that was to replace it",
                )
                opened.works(when)
                unchanged(path, opened, "after PermissionError and more writes")
            else:
                equal(new, path.read_bytes(), f"the bytes under the name {when}")
                opened.works(when)
                equal(new, path.read_bytes(), f"the bytes under the name {when} and more writes")
            opened.close()
            os.unlink(path)
    with raises(FileNotFoundError, "opening the file when it is gone"):
        os.stat(path)


def replace_here(_: Subject, folder: Path) -> None:
    """N3: replace the file, or record that it was refused."""
    try:
        os.replace(folder / "new", folder / "file")
    except PermissionError:
        (folder / "refused").touch()


def replace_elsewhere(subject: Subject, folder: Path) -> None:
    """N3: another process replaces the file."""
    in_child(replace_here, subject, folder)
