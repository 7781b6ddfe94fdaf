"""Warnings are silenced in one thread, under any filters, and nowhere else."""

import threading
import warnings

import pytest

from mmmedia._quiet import quiet


def test_silence_holds_under_filters_that_raise() -> None:
    """A filter that makes errors of warnings does not see those of a quiet block, nested or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet(), quiet():
            warnings.warn("odd file", stacklevel=1)
        with quiet():
            warnings.warn("odd file", stacklevel=1)


def test_silence_ends_with_the_block() -> None:
    """After the block, also after an exception in it, warnings are heard again."""
    with pytest.raises(KeyError), quiet():
        raise KeyError
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_other_threads_are_heard() -> None:
    """While one thread is quiet, another one's warnings still come through."""
    heard: list[Warning] = []

    def warn() -> None:
        try:
            warnings.warn("heard", stacklevel=1)
        except UserWarning as warning:  # the project's filters raise
            heard.append(warning)

    with quiet():
        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
    assert [str(warning) for warning in heard] == ["heard"]


def test_the_filter_is_put_in_place_once() -> None:
    """Many blocks leave one filter behind, not one each."""
    with warnings.catch_warnings():
        with quiet():
            pass
        filters = list(warnings.filters)
        for _ in range(3):
            with quiet():
                pass
        assert list(warnings.filters) == filters
