"""Reading and writing tensors that strangers sent: ``torch.save`` archives and NumPy arrays.

`torch.load` with ``weights_only=True`` runs no code of the sender, but it believes what an archive says
of itself: it allocates what a pickle asks for, and validates sparse tensors only under a flag, and through
a list, that the whole process shares. So an archive is first *rehearsed*: its pickle, which for one tensor
is a few hundred bytes, is followed without building anything, and only what describes exactly one tensor,
whose storages are as long as the bytes sent for them, reaches `torch.load`.
"""

import io
import math
import pickletools
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from mmmedia import envs
from mmmedia._quiet import quiet
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MediaError,
    NotATensorError,
)
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import torch

_NUMPY_MAGIC: Final = b"\x93NUMPY"
_ZIP_MAGIC: Final = b"PK\x03\x04"
# Longer than the zip directory, the pickles, or the NumPy header of any single tensor.
_MAX_PREAMBLE_BYTES: Final = 1 << 16


def load_tensor(data: bytes, *, suffix: str = "") -> "torch.Tensor":
    """Read one tensor from a ``torch.save`` archive or from the bytes of a ``.npy`` file.

    The two are told apart by the magic number of NumPy; with the `suffix` ``.npy`` only that is read.

    Returns:
        A dense tensor on the CPU, detached, with a storage no longer than itself. A sparse one is made
        dense. All dtypes of torch but the quantised ones are kept as they are.

    Raises:
        InvalidMediaError: (a `ValueError`) not one tensor, pickled code, sizes that don't fit the bytes,
            sparse indices out of range.
        LimitExceededError: (a `ValueError`) more dense bytes than `VLLM_MAX_EMBED_DECODE_BYTES`; known
            before anything of that size is allocated.

    >>> import torch
    >>> load_tensor(dump_tensor(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)))
    tensor([[1., 2.]], dtype=torch.bfloat16)
    """
    is_numpy = suffix.lower() == ".npy" or data[: len(_NUMPY_MAGIC)] == _NUMPY_MAGIC
    try:
        tensor = _load_numpy(data) if is_numpy else _load_torch(data)
        if tensor.dtype == _torch().bool:
            # Bytes other than 0 and 1 are no bools, and what torch then computes is undefined.
            tensor = tensor.view(_torch().uint8) != 0
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001 what parsers raise on the bytes of a stranger is not listed
        _refuse(f"{type(error).__name__}: {_brief(str(error))}")
    return tensor


def dump_tensor(tensor: "torch.Tensor") -> bytes:
    """Return a ``torch.save`` archive of a tensor: its own elements only, detached, as on the CPU.

    Raises:
        InvalidArgumentError: (a `ValueError`) not a tensor.
    """
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgumentError(f"Not a torch.Tensor: {type(tensor).__name__}.")
    file = io.BytesIO()
    torch.save(_own_storage(tensor.detach().cpu()), file)
    return file.getvalue()


def _torch() -> Any:
    import torch

    return torch


def _own_storage(tensor: "torch.Tensor") -> "torch.Tensor":
    """Return a plain tensor that keeps no more memory alive than it shows."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        return tensor
    tensor = tensor.resolve_conj().resolve_neg()
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def _refuse(reason: str, kind: type[InvalidMediaError] = InvalidMediaError) -> NoReturn:
    raise kind(f"Failed to load tensor: {reason}") from None


def _brief(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    return line if len(line) <= 200 else f"{line[:200]}…"


def check_dense_bytes(shape: tuple[int, ...], item_bytes: int) -> int:
    """Return the bytes of a dense tensor.

    Raises:
        LimitExceededError: (a `ValueError`) more than `VLLM_MAX_EMBED_DECODE_BYTES`.
    """
    dense_bytes, limit = math.prod(shape) * item_bytes, envs.VLLM_MAX_EMBED_DECODE_BYTES
    if dense_bytes > limit > 0:
        size = "x".join(map(str, shape[:16]))
        raise LimitExceededError(
            f"A tensor of {size} elements takes {dense_bytes} bytes when dense, more than the {limit} "
            f"that VLLM_MAX_EMBED_DECODE_BYTES allows."
        )
    return dense_bytes


# --- NumPy ---------------------------------------------------------------------------------------------

# The header is a Python literal. Reading it by pattern instead of `ast` leaves nothing to be clever with.
_HEADER = re.compile(
    r"""\s*\{\s*
    (?:(?:['"]descr['"]\s*:\s*(?P<descr>'[^']*'|"[^"]*"|\[.*\])
        |['"]fortran_order['"]\s*:\s*(?P<fortran>True|False)
        |['"]shape['"]\s*:\s*\((?P<shape>[\d,\sL]*)\))\s*(?:,\s*)?){3}
    \}\s*""",
    re.VERBOSE | re.DOTALL,
)
_DTYPE = re.compile(r"[<>=|]?(?:b1|[iu][1248]|f[248]|c8|c16)")


def _load_numpy(data: bytes) -> "torch.Tensor":
    import torch

    if data[:6] != _NUMPY_MAGIC or len(data) < 10:
        _refuse("not a NumPy array: the bytes do not begin with its magic number.")
    version = data[6]
    if version not in (1, 2, 3) or data[7] != 0:
        _refuse(f"a NumPy array of the unknown format version {version}.{data[7]}.")
    length_bytes = 2 if version == 1 else 4
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    if start > min(len(data), _MAX_PREAMBLE_BYTES):
        _refuse(f"the header of the NumPy array claims to end at byte {start} of {len(data)}.")
    header = _HEADER.fullmatch(data[8 + length_bytes : start].decode("latin-1"))
    if header is None or None in header.group("descr", "fortran", "shape"):
        _refuse("the header of the NumPy array can't be read.")
    descr = header["descr"].strip("'\"")
    if not _DTYPE.fullmatch(descr):
        _refuse(f"a NumPy array of dtype {descr[:64]!r}; only numbers and bools are read.")
    dtype = np.dtype(descr)
    shape = tuple(int(length.strip(" \t\nL")) for length in header["shape"].split(",") if length.strip())
    size = check_dense_bytes(shape, dtype.itemsize)
    if size != len(data) - start:
        _refuse(f"the NumPy array declares {size} bytes and {len(data) - start} follow its header.")
    order: Any = "F" if header["fortran"] == "True" else "C"
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data, start, order=order)
    return torch.from_numpy(np.array(array, dtype=dtype.newbyteorder("="), order="C"))


# --- torch ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    """A name that a pickle refers to."""

    name: str


@dataclass(frozen=True)
class _Call:
    """A call that a pickle asks for."""

    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Storage:
    """A storage that a pickle asks for; `item_bytes` is of its own dtype."""

    key: str
    length: int
    item_bytes: int

    @property
    def nbytes(self) -> int:
        return self.length * self.item_bytes


@dataclass(frozen=True)
class _Declared:
    """The tensor that an archive declares."""

    shape: tuple[int, ...]
    item_bytes: int
    layout: str = "torch.strided"


_STORAGE_ITEM_BYTES: Final = {
    "torch.ByteStorage": 1, "torch.CharStorage": 1, "torch.BoolStorage": 1, "torch.ShortStorage": 2,
    "torch.HalfStorage": 2, "torch.BFloat16Storage": 2, "torch.IntStorage": 4, "torch.FloatStorage": 4,
    "torch.LongStorage": 8, "torch.DoubleStorage": 8, "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16, "torch.storage.UntypedStorage": 1,
}  # fmt: skip
_COMPRESSED_LAYOUTS: Final = {f"torch.sparse_{form}" for form in ("csr", "csc", "bsr", "bsc")}
_NO_HOOKS: Final = _Call("collections.OrderedDict", ())
# What torch calls to rebuild tensors that no engine can take as an embedding.
_UNSUPPORTED: Final = {
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data (on the meta device)",
    "torch._tensor._rebuild_from_type_v2": "a tensor subclass, or a tensor with attributes",
    "torch._utils._rebuild_wrapper_subclass": "a tensor subclass",
    "torch._utils._rebuild_parameter_with_state": "a parameter with attributes",
}


def _load_torch(data: bytes) -> "torch.Tensor":
    import torch

    if not data:
        _refuse("no data.")
    storages: dict[str, _Storage] = {}
    if data.startswith(_ZIP_MAGIC):
        declared = _rehearse_archive(data, storages)
    else:
        declared = _rehearse_legacy(data, storages)
    check_dense_bytes(declared.shape, declared.item_bytes)
    with _torch_lock, quiet():  # a first sparse CSR tensor is told of as "beta"
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != declared.shape:
            _refuse("the archive reads differently the second time.")
        if declared.layout != "torch.strided":
            tensor = _checked(tensor)
    return _own_storage(tensor.detach().to_dense())


# Whether sparse tensors are checked is one flag for the process, which torch sets and restores whenever it
# makes one, and those that it loads wait for their check in one list. Two loads at once would switch the
# checks off for each other, or fail for each other's faults; they take turns instead, which costs little,
# as most of a load is one copy.
_torch_lock = threading.Lock()


@contextmanager
def checked_sparse_tensors() -> Iterator[None]:
    """Have torch check every sparse tensor that is made inside; one thread at a time is inside.

    >>> import torch
    >>> with checked_sparse_tensors():
    ...     torch.sparse_coo_tensor([[7]], [1.0], (2,))
    Traceback (most recent call last):
        ...
    RuntimeError: size is inconsistent with indices: for dim 0, size is 2 but found index 7
    """
    check: Any = _torch().sparse.check_sparse_tensor_invariants
    with _torch_lock, check(enable=True):
        yield


def _begin_afresh() -> None:
    global _torch_lock  # noqa: PLW0603
    _torch_lock = threading.Lock()


afresh_in_child(_begin_afresh)


def _checked(sparse: "torch.Tensor") -> "torch.Tensor":
    """Return the same sparse tensor made anew, from the same parts, its indices checked."""
    import torch

    if sparse.layout == torch.sparse_coo:
        return torch.sparse_coo_tensor(
            sparse._indices(), sparse._values(), sparse.shape, check_invariants=True
        )
    by_row = sparse.layout in (torch.sparse_csr, torch.sparse_bsr)
    return torch.sparse_compressed_tensor(
        sparse.crow_indices() if by_row else sparse.ccol_indices(),
        sparse.col_indices() if by_row else sparse.row_indices(),
        sparse.values(),
        sparse.shape,
        layout=sparse.layout,
        check_invariants=True,
    )


class _Preamble(io.BytesIO):
    """A file whose reads are short, so that a directory or pickle that is too long is an error."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_PREAMBLE_BYTES:
            _refuse(f"{size} bytes of zip directory or pickle, too long for a single tensor.")
        return super().read(size)


def _rehearse_archive(data: bytes, storages: dict[str, _Storage]) -> _Declared:
    """Return what a zip archive of `torch.save` declares, its records compared with it."""
    with zipfile.ZipFile(_Preamble(data)) as archive:
        records = {record.filename: record for record in archive.infolist()}
        # One parser must not see another archive than the next: nothing before, between or behind.
        if len(records) != len(archive.infolist()) or data[-22:-18] != b"PK\5\6":
            _refuse("the zip archive names a record twice, or something stands behind its directory.")
        if any(record.compress_type or record.flag_bits & 1 for record in records.values()):
            _refuse("the zip archive is compressed or encrypted, which those of torch.save are not.")
        first = min(records.values(), key=lambda record: record.header_offset)
        prefix = first.filename.split("/", 1)[0]
        if first.header_offset != 0 or f"{prefix}/data.pkl" not in records:
            _refuse("a zip archive that torch.save did not write.")
        if f"{prefix}/constants.pkl" in records:
            _refuse("a TorchScript archive, not a tensor.")
        pickle = archive.read(f"{prefix}/data.pkl")
    declared = _declared(_rehearse(io.BytesIO(pickle), storages))
    for key, storage in storages.items():
        record = records.get(f"{prefix}/data/{key}")
        if record is None or record.file_size != storage.nbytes:
            sent = 0 if record is None else record.file_size
            _refuse(f"a storage of {storage.nbytes} bytes is declared and {sent} bytes were sent for it.")
    _check_total(data, storages)
    return declared


def _rehearse_legacy(data: bytes, storages: dict[str, _Storage]) -> _Declared:
    """Return what a file in the format before the zip archives declares: pickles, then raw storages."""
    file = io.BytesIO(data[:_MAX_PREAMBLE_BYTES])
    if _rehearse(file, {}) != 0x1950A86A20F9469CFC6C or _rehearse(file, {}) != 1001:
        _refuse("neither a torch.save archive nor a NumPy array.")
    _rehearse(file, {})  # of the system it was written on
    declared = _declared(_rehearse(file, storages))
    _check_total(data, storages)
    return declared


def _check_total(data: bytes, storages: dict[str, _Storage]) -> None:
    total = sum(storage.nbytes for storage in storages.values())
    if total > len(data):
        _refuse(f"storages of {total} bytes are declared in an archive of {len(data)}.")


def _rehearse(file: io.BytesIO, storages: dict[str, _Storage]) -> Any:
    """Follow a pickle without building anything; note the storages it asks for.

    Knows the instructions that `torch.save` writes for plain values, calls and storages, on a stack of
    stacks as torch's own reader has it, and refuses all others.

    Returns:
        Plain values as they are, lists and dicts by their type only unless their keys are text, and what
        would be built as `_Global`, `_Call` and `_Storage`.
    """
    stacks: list[list[Any]] = [[]]
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        stack = stacks[-1]
        match opcode.name:
            case "PROTO" if argument == 2:
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "GLOBAL":
                stack.append(_global(str(argument)))
            case "MARK":
                stacks.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stacks.pop()
                stacks[-1].append(tuple(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                items = [stack.pop() for _ in range(count)]
                stack.append(tuple(reversed(items)))
            case "EMPTY_LIST" | "EMPTY_DICT":
                stack.append([] if opcode.name == "EMPTY_LIST" else {})
            case "APPEND":
                stack.pop()
                _of_type(stack[-1], list)
            case "APPENDS":
                stacks.pop()
                _of_type(stacks[-1][-1], list)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _dict(stack[-1])[_of_type(key, str)] = value
            case "SETITEMS":
                stacks.pop()
                target = _dict(stacks[-1][-1])
                target.update(zip((_of_type(key, str) for key in stack[::2]), stack[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[_of_type(argument, int)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[_of_type(argument, int)])
            case "REDUCE":
                arguments, function = _of_type(stack.pop(), tuple), _of_type(stack.pop(), _Global)
                stack.append(_Call(function.name, arguments))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    _refuse("one storage is declared in two ways.")
                stack.append(storage)
            case "STOP":
                if len(stacks) != 1 or len(stack) != 1:
                    _refuse("the pickle builds more than one object.")
                return stack[0]
            case _:
                _refuse(f"the pickle instruction {opcode.name} has no place in the archive of a tensor.")
    return None  # unreachable: genops raises where STOP is missing


def _of_type(value: Any, kind: Any) -> Any:
    if type(value) is not kind:
        _refuse(f"the pickle has a {type(value).__name__} where a {kind.__name__} belongs.")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if value == _NO_HOOKS:
        _refuse("an OrderedDict, perhaps the state of a model, not a tensor.")
    mapping: dict[str, Any] = _of_type(value, dict)
    return mapping


def _global(argument: str) -> _Global:
    module, _, name = argument.partition(" ")
    full_name = f"{module}.{name}"
    if full_name in _UNSUPPORTED:
        _refuse(f"{_UNSUPPORTED[full_name]}; only plain dense and sparse tensors are read.")
    if module not in ("torch", "torch._utils", "torch.storage", "torch.serialization") and (
        full_name != "collections.OrderedDict"
    ):
        _refuse(f"it holds pickled code or objects ({_brief(full_name)[:64]}), which are not read.")
    return _Global(full_name)


def _storage(persistent_id: Any) -> _Storage:
    match persistent_id:
        case ("storage", _Global(kind), str(key), str(), int(length)) if kind in _STORAGE_ITEM_BYTES:
            pass
        case ("storage", _Global(kind), str(key), str(), int(length), None) if kind in _STORAGE_ITEM_BYTES:
            pass
        case _:
            _refuse("it refers to a storage of an unknown kind.")
    if length < 0:
        _refuse(f"a storage of the negative length {length}.")
    return _Storage(key, length, _STORAGE_ITEM_BYTES[kind])


def _declared(result: Any) -> _Declared:
    """Return the one tensor that a rehearsed pickle would build; anything else is an error."""
    match result:
        case _Call("torch._utils._rebuild_parameter", (inner, bool(), hooks)) if hooks == _NO_HOOKS:
            return _declared(inner)
        case _Call(
            "torch._utils._rebuild_tensor_v2",
            (_Storage() as storage, offset, size, stride, bool(), hooks, *metadata),
        ) if hooks == _NO_HOOKS and _are_flags(metadata):
            return _strided(storage, offset, size, stride, storage.item_bytes)
        case _Call(
            "torch._utils._rebuild_tensor_v3",
            (_Storage() as storage, offset, size, stride, bool(), hooks, _Global(dtype), *metadata),
        ) if hooks == _NO_HOOKS and _are_flags(metadata):
            item_bytes = _dtype_item_bytes(dtype)
            return _strided(storage, offset, size, stride, item_bytes)
        case _Call(
            "torch._utils._rebuild_sparse_tensor",
            (_Call("torch.serialization._get_layout", (str(layout),)), tuple(parts)),
        ):
            return _sparse(layout, parts)
        case _Call(function):
            _refuse(f"the result of {_brief(function)[:64]}, not a tensor.", NotATensorError)
    _refuse(f"a {type(result).__name__}, not a tensor.", NotATensorError)


def _are_flags(metadata: list[Any]) -> bool:
    """Say whether the last arguments are at most one dict of flags, such as that of conjugation."""
    return len(metadata) <= 1 and all(
        type(flags) is dict and set(flags) <= {"conj", "neg"} and set(map(type, flags.values())) <= {bool}
        for flags in metadata
    )


def _dtype_item_bytes(name: str) -> int:
    import torch

    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        _refuse(f"{_brief(name)[:64]} is not a dtype.")
    return dtype.itemsize


def _strided(storage: _Storage, offset: Any, size: Any, stride: Any, item_bytes: int) -> _Declared:
    """Return the declared tensor if all its elements lie within the storage."""
    numbers = [offset, *_of_type(size, tuple), *_of_type(stride, tuple)]
    if len(size) != len(stride) or any(_of_type(number, int) < 0 for number in numbers):
        _refuse("a tensor with a negative size, stride or offset, or of two ranks.")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and (last + 1) * item_bytes > storage.nbytes:
        _refuse(f"element {last} of a tensor lies outside its storage of {storage.nbytes} bytes.")
    return _Declared(size, item_bytes)


def _sparse(layout: str, parts: tuple[Any, ...]) -> _Declared:
    """Return the declared sparse tensor: two or three tensors, then its size, then perhaps a flag."""
    if layout == "torch.sparse_coo":
        (*tensors, size), flags = parts[:3], parts[3:]
    elif layout in _COMPRESSED_LAYOUTS:
        (*tensors, size), flags = parts[:4], parts[4:]
    else:
        _refuse(f"a tensor of layout {layout[:64]!r}.")
    if isinstance(size, _Call) and size.function == "torch.Size":
        (size,) = size.arguments
    inner = [_declared(tensor) for tensor in tensors]
    if any(part.layout != "torch.strided" for part in inner) or any(type(flag) is not bool for flag in flags):
        _refuse("the parts of a sparse tensor are not dense tensors.")
    if any(_of_type(length, int) < 0 for length in _of_type(size, tuple)):
        _refuse("a sparse tensor with a negative size.")
    return _Declared(size, inner[-1].item_bytes, layout)
