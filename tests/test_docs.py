"""The documentation: its examples run, its tables are fresh, and its names exist."""

import re
from pathlib import Path

import pytest
from children import run_python

import mappedfile.contract
from mappedfile import Advice, MappedFile, Residency, View

ROOT = Path(__file__).parent.parent
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()
]
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "backends/*.md",
        "backends/*.[ch]",
        "tests/*.[ch]",
        ".ci/*",
        ".github/workflows/*.yml",
        ".pre-commit-config.yaml",
        "pyproject.toml",
        "tox.ini",
    )
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def blocks(page, language):
    """Yield the code blocks of a page in a language, each with its line number."""
    text = page.read_text("utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)), found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples(page, tmp_path, monkeypatch):
    """Every Python block of a page runs, in order, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for line, code in blocks(page, "python"):
        exec(compile("\n" * line + code, page, "exec"), namespace)


def test_the_readme_has_an_example():
    """The first example of the README has about ten lines."""
    (_, code), *_ = blocks(ROOT / "README.md", "python")

    assert 8 <= len([line for line in code.splitlines() if line]) <= 12


def test_tables_are_fresh():
    """The generated tables in docs/contract.md are what docs/tables.py generates."""
    run_python(ROOT / "docs" / "tables.py", "--check")


def test_links_lead_somewhere():
    """Every relative link of a page is the path of a file."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_reference_names_everything():
    """docs/api.md has every public name, and every method and attribute of a window."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    every = [*mappedfile.__all__, *mappedfile.contract.__all__]
    every += [name for name in {*dir(MappedFile), *dir(View), *vars(Residency)} if name[0] != "_"]
    every += [advice.value for advice in Advice]

    assert [] == [name for name in every if not re.search(rf"\b{name}\b", text)]


def test_tests_that_are_named_exist():
    """Every test that a page names exists."""
    sources = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    tests = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"`(test_\w+\*?)`", page.read_text("utf-8"))
    }
    assert named
    for name in named:
        assert name in tests or (
            name.endswith("*") and any(test.startswith(name[:-1]) for test in tests)
        ), name


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_lines_end_at_100_columns(path):
    """No line is longer than 100 columns, except the rows of tables."""
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)

    assert [] == [n for n, line in lines if len(line) > 100 and not line.startswith("| ")]


def test_the_architecture_names_what_is_there():
    """Files and functions that docs/architecture.md names exist, and every source file is named."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = set(re.findall(r"`([^`]+)`", text))
    files = {name for name in quoted if "/" in name}
    sources = "".join(
        path.read_text("utf-8")
        for path in [*ROOT.glob("backends/*.[ch]"), *ROOT.glob("src/**/*.py")]
    )

    assert [] == [name for name in files if not (ROOT / name).exists()]
    parts = [*ROOT.glob("backends/*.[ch]"), *ROOT.glob("src/mappedfile/*.py")]
    there = {path.relative_to(ROOT).as_posix() for path in parts if path.stem[:2] != "__"}
    assert set() == there - files
    functions = [name for name in quoted if re.fullmatch(r"_?[a-z]+(_[a-z]+)+|[a-z]+", name)]
    assert 20 <= len(functions)
    assert [] == [name for name in functions if not re.search(rf"\b{name}\b", sources)]
