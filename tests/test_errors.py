"""The tree of exceptions, and the built-in types that callers already catch."""

import copy
import inspect
import pickle

import pytest

from mmmedia import errors

BUILT_IN = {
    "InvalidMediaError": (ValueError,),
    "UnsupportedMediaError": (NotImplementedError,),
    "InvalidArgumentError": (ValueError,),
    "InvalidSettingError": (ValueError,),
    "InvalidURLError": (ValueError,),
    "RefusedURLError": (ValueError,),
    "LimitExceededError": (ValueError,),
    "LocalFilesDisabledError": (RuntimeError,),
    "LocalFileError": (OSError, ValueError),
    "UnknownExtensionError": (AssertionError,),
}


def concrete() -> dict[str, type]:
    return {
        name: error
        for name, error in inspect.getmembers(errors, inspect.isclass)
        if error.__module__ == errors.__name__ and error is not errors.MediaError
    }


def test_every_error_is_a_media_error() -> None:
    """One root to catch all, and each leaf stands in the tree of the module's docstring."""
    assert set(BUILT_IN) <= set(concrete())
    for name, error in concrete().items():
        assert issubclass(error, errors.MediaError)
        assert error.__doc__
        assert name in (errors.__doc__ or "")


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_types(name: str) -> None:
    """The promise of each type, one by one."""
    error = getattr(errors, name)
    for built_in in BUILT_IN[name]:
        with pytest.raises(built_in, match="what was wrong"):
            raise error("what was wrong")


@pytest.mark.parametrize("name", concrete())
@pytest.mark.parametrize("way", ["pickle", "cloudpickle", "deepcopy"])
def test_errors_travel(name: str, way: str) -> None:
    """Errors cross process borders with their message and what they say besides."""
    error = getattr(errors, name)("message")
    if name == "PartError":
        error = errors.PartError.around(errors.RefusedURLError("no", reason="port"), 1, 2, "image_url")
    if name == "RefusedURLError":
        error.reason = "domain"
    again = copy.deepcopy(error) if way == "deepcopy" else pickle.loads(pytest.importorskip(way).dumps(error))
    assert again is not error
    assert (str(again), again.http_status) == (str(error), error.http_status)
    assert vars(again) == vars(error)
    if name == "PartError":
        assert (again.reason, again.message_index, again.part_index) == ("port", 1, 2)
        assert isinstance(again, errors.RefusedURLError)
    else:
        assert type(again) is type(error)
