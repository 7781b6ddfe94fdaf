"""Classes by name."""

import logging

import pytest

from mmmedia.errors import UnknownExtensionError
from mmmedia.registry import ExtensionManager


class Loader:
    def __init__(self, *args: object, **kwargs: object) -> None:
        self.args, self.kwargs = args, kwargs


@pytest.fixture
def loaders() -> ExtensionManager[Loader]:
    manager = ExtensionManager[Loader]("video loader")
    manager.register("plain")(Loader)
    return manager


def test_registering_returns_the_class(loaders: ExtensionManager[Loader]) -> None:
    """The decorator changes nothing about the class."""
    assert loaders.register("again")(Loader) is Loader


def test_instances_get_the_arguments(loaders: ExtensionManager[Loader]) -> None:
    """`load` makes a new instance each time, and hands all arguments on."""
    one, two = loaders.load("plain", 1, key=2), loaders.load("plain")
    assert (one.args, one.kwargs) == ((1,), {"key": 2})
    assert one is not two


@pytest.mark.parametrize("name", ["missing", "", None, [], "Plain"])
def test_unknown_names_are_assertion_errors_naming_what_there_is(
    loaders: ExtensionManager[Loader], name: object
) -> None:
    """Callers catch `AssertionError`; its message lists the alternatives."""
    with pytest.raises(UnknownExtensionError, match=r"Unknown video loader .*; registered: plain\."):
        loaders.load(name)  # type: ignore[arg-type]
    assert issubclass(UnknownExtensionError, AssertionError)
    with pytest.raises(AssertionError, match="registered: nothing"):
        ExtensionManager[Loader]().get("plain")


def test_last_registration_wins_and_is_logged(
    loaders: ExtensionManager[Loader], caplog: pytest.LogCaptureFixture
) -> None:
    """An engine may replace a built-in, and the log says so."""

    class Other(Loader):
        pass

    with caplog.at_level(logging.WARNING):
        loaders.register("plain")(Other)
    assert loaders.get("plain") is Other
    assert "'plain'" in caplog.text


def test_a_notebook_cell_may_run_twice(
    loaders: ExtensionManager[Loader], caplog: pytest.LogCaptureFixture
) -> None:
    """The same class defined again replaces the first without a word."""

    def cell() -> type:
        class Mine(Loader):
            pass

        return loaders.register("mine")(Mine)

    first, second = cell(), cell()
    assert first is not second
    assert loaders.get("mine") is second
    assert not caplog.records


def test_it_reads_like_a_collection(loaders: ExtensionManager[Loader]) -> None:
    """Names can be listed, counted, tested; the mapping can't be written from outside."""
    assert list(loaders) == ["plain"]
    assert len(loaders) == 1
    assert "plain" in loaders
    assert "missing" not in loaders
    assert dict(loaders.name2class) == {"plain": Loader}
    with pytest.raises(TypeError):
        loaders.name2class["x"] = Loader  # type: ignore[index]
    assert repr(loaders) == "ExtensionManager(video loader: plain)"
