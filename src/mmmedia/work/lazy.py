"""`lazy_property`: an attribute that is computed when it is first asked for."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class lazy_property(Generic[T]):  # noqa: N801  # a decorator
    """As `functools.cached_property`, without the lock that it has in Python 3.11.

    That lock is one for all instances, and a child that is forked while another thread computes waits for it
    for ever. Two threads that ask at the same time both compute here.

    >>> class Clip:
    ...     @lazy_property
    ...     def size(self) -> int:
    ...         print("measured")
    ...         return 7
    >>> clip = Clip()
    >>> clip.size + clip.size
    measured
    14
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        value = vars(instance)[self._name] = self._make(instance)
        return value
