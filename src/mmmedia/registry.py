"""`ExtensionManager`: classes by name, for loaders and connectors of this library and of third parties."""

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from mmmedia.errors import UnknownExtensionError

logger = logging.getLogger(__name__)

T = TypeVar("T")
ClassT = TypeVar("ClassT", bound=type)


class ExtensionManager(Generic[T]):
    """A registry that maps a name to a class and makes instances of it.

    Args:
        kind: what the classes are, for error messages.

    >>> greeters = ExtensionManager[object]("greeter")
    >>> @greeters.register("polite")
    ... class Polite:
    ...     def greet(self) -> str:
    ...         return "good evening"
    >>> greeters.load("polite").greet()
    'good evening'
    >>> greeters.load("rude")
    Traceback (most recent call last):
        ...
    mmmedia.errors.UnknownExtensionError: Unknown greeter 'rude'; registered: polite.
    """

    def __init__(self, kind: str = "extension class") -> None:
        self._kind = kind
        self._classes: dict[str, type] = {}
        self._modules: dict[str, str] = {}

    @property
    def name2class(self) -> Mapping[str, type]:
        """A read-only view of what is registered."""
        for name in list(self._modules):
            self.get(name)
        return MappingProxyType(self._classes)

    def register_lazily(self, name: str, module: str) -> None:
        """Register a name whose class is registered by importing `module`, which waits for its first use."""
        self._modules[name] = module

    def register(self, name: str) -> Callable[[ClassT], ClassT]:
        """Decorate a class to register it under `name`.

        The last registration wins, so that a notebook cell may run twice and an engine may replace a
        built-in; replacing a class of another name is logged as a warning.
        """

        def add(cls: ClassT) -> ClassT:
            old = self._classes.get(name)
            if old is not None and (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
                logger.warning("%s %r: %r replaces %r", self._kind, name, cls, old)
            self._classes[name] = cls
            self._modules.pop(name, None)
            return cls

        return add

    def get(self, name: str) -> type:
        """Return the class registered under `name`.

        Raises:
            UnknownExtensionError: (an `AssertionError`) nothing is registered under that name.
        """
        try:
            if name in self._modules:
                importlib.import_module(self._modules[name])
            return self._classes[name]
        except (KeyError, TypeError):
            known = ", ".join(sorted(self)) or "nothing"
            raise UnknownExtensionError(f"Unknown {self._kind} {name!r}; registered: {known}.") from None

    def load(self, cls_name: str, *args: object, **kwargs: object) -> T:
        """Return a new instance of the class registered under `cls_name`; errors as in `get`."""
        instance: T = self.get(cls_name)(*args, **kwargs)
        return instance

    def __contains__(self, name: object) -> bool:
        return name in self._classes or name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter({**self._classes, **self._modules})

    def __len__(self) -> int:
        return len({**self._classes, **self._modules})

    def __repr__(self) -> str:
        return f"ExtensionManager({self._kind}: {', '.join(sorted(self))})"
