"""The layout as CONTRIBUTING has it: imports point one way, and no module outgrows what one can read."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mmmedia

SOURCE = Path(mmmedia.__file__).parent
# From the bottom up: what stands in a row imports from its own row and from those before it.
LAYERS = (
    ("errors", "_quiet", "_version"),
    ("envs", "registry", "options", "packages"),
    (
        "work",
        "urls",
        "metrics",
        "containers",
        "egress",
        "hasher",
        "hashing",
        "tensors",
        "image",
        "audio",
        "show",
    ),
    ("connections", "exceptions", "sources", "cache", "video", "video_decoders", "gpu_ipc_memory"),
    ("media", "utils"),
    ("loading", "batch"),
    ("pipeline",),
    ("cli", "integrations", "__main__"),
)
LINES = 600


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("mmmedia", *(part for part in parts if part != "__init__")))


FILES = {module_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports in a piece of code, also those inside functions; not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from (each for other in child.orelse for each in statements(ast.Module([other])))
        else:
            yield from statements(child)


def named(module: str, statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """What a statement imports, by full name."""
    if isinstance(statement, ast.Import):
        yield from (alias.name for alias in statement.names)
        return
    origin = statement.module or ""
    if statement.level:
        package = module.split(".")[: None if FILES[module].name == "__init__.py" else -1]
        package = package[: len(package) - statement.level + 1]
        origin = ".".join([*package, *filter(None, [origin])])
    yield from (f"{origin}.{alias.name}" for alias in statement.names)


def imports_in(source: str, module: str) -> set[str]:
    """The modules of ours that a source text imports, by their files."""
    found = set()
    for statement in statements(ast.parse(source)):
        for name in named(module, statement):
            while name and name not in FILES:
                name = name.rpartition(".")[0]  # a name that the module holds
            found.add(name)
    return found - {"", module}


@cache
def imports(module: str) -> set[str]:
    """The modules of ours that a module imports. A package that hands names on lazily has them in a stub."""
    path = FILES[module]
    stub = path.with_suffix(".pyi")
    return imports_in((stub if stub.exists() else path).read_text(), module)


def room(module: str) -> str:
    return module.split(".")[1]


def layer(module: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room(module) in rooms)


def inside() -> list[str]:
    """All modules but the face, which hands on what others hold."""
    return [module for module in FILES if module != "mmmedia"]


def arrows(package: str) -> dict[str, set[str]]:
    """Which of the modules and packages in a package import which others of them."""
    found: dict[str, set[str]] = {}
    depth = package.count(".") + 1

    def member(module: str) -> str:
        return ".".join([*module.split(".")[: depth + 1], *(["__init__"] if module == package else [])])

    for module in FILES:
        if module == "mmmedia" or not f"{module}.".startswith(f"{package}."):
            continue
        targets = {each for each in imports(module) if f"{each}.".startswith(f"{package}.")}
        found.setdefault(member(module), set()).update(map(member, targets - {"mmmedia"}))
    return {name: targets - {name} for name, targets in found.items()}


def test_every_kind_of_import_is_seen() -> None:
    """Were the reader blind to one, the other tests could not fail."""
    source = """
from __future__ import annotations
import json, mmmedia.urls
from mmmedia import envs
from mmmedia.errors import MediaError
from . import base
from .image import ImageMediaIO
from mmmedia.pipeline import *
if TYPE_CHECKING:
    from mmmedia.video import loaders
else:
    from mmmedia.video import samplers
def function():
    with open("x"):
        import mmmedia.cli.demo as demo
"""
    assert imports_in(source, "mmmedia.media.video") == {
        "mmmedia.urls", "mmmedia.envs", "mmmedia.errors", "mmmedia.media.base", "mmmedia.media.image",
        "mmmedia.pipeline", "mmmedia.video.samplers", "mmmedia.cli.demo",
    }  # fmt: skip
    assert imports("mmmedia.media") >= {"mmmedia.media.base", "mmmedia.media.connector"}
    assert "mmmedia.media" in arrows("mmmedia")["mmmedia.pipeline"]
    assert "mmmedia.media.base" in arrows("mmmedia.media")["mmmedia.media.__init__"]


def test_every_room_has_its_place() -> None:
    placed = {name for rooms in LAYERS for name in rooms}
    assert {room(module) for module in inside()} <= placed


@pytest.mark.parametrize("module", inside())
def test_no_import_points_upward(module: str) -> None:
    targets = imports(module) - {"mmmedia"}
    assert not {each for each in targets if layer(each) > layer(module)}


@pytest.mark.parametrize("package", [name for name, path in FILES.items() if path.name == "__init__.py"])
def test_no_import_goes_in_a_circle(package: str) -> None:
    """Neither between modules nor between packages: what is in a package can be put in a row."""
    try:
        TopologicalSorter(arrows(package)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_sampler_knows_no_decoder() -> None:
    assert not {each for each in imports("mmmedia.video.samplers") if "decoders" in each}


def test_no_module_is_longer_than_one_can_read() -> None:
    lengths = {
        path.relative_to(SOURCE).as_posix(): path.read_text().count("\n") for path in SOURCE.rglob("*.py")
    }
    assert {name for name, lines in lengths.items() if lines > LINES} == set()
