"""The security page names the tests that hold each promise: they exist."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "security.md"


def names(file: Path) -> set[str]:
    """The tests of a file, as pytest names them."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


def test_every_test_that_is_named_exists() -> None:
    cited = re.findall(r"`(test_\w+\.py)::([\w:]+)`", PAGE.read_text())
    assert len(cited) > 40
    missing = [
        f"{file}::{name}"
        for file, name in cited
        if not any(name in names(path) for path in TESTS.rglob(file))
    ]
    assert not missing


def test_every_section_of_threats_names_tests_and_what_is_not_promised() -> None:
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:-1]
    assert len(sections) == 7
    for section in sections:
        assert "`test_" in section
        promises = re.split(r"^\* ", section, flags=re.MULTILINE)[1:]
        assert all("`test_" in promise for promise in promises), promises
