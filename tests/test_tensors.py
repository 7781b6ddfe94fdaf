"""Tensors of strangers: what is read, what is refused, and that refusing is cheap and final."""

import io
import os
import pickle
import signal
import struct
import threading
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from mmmedia import tensors
from mmmedia._quiet import quiet
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, MediaError
from mmmedia.tensors import dump_tensor, load_tensor

DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16,
    torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64, torch.bool, torch.complex64,
    torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def save(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    with quiet():
        torch.save(value, file, **options)
    return file.getvalue()


def save_array(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def npy(header: str | bytes, body: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1") if isinstance(header, str) else header
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + body


def rebuilt(data: bytes, change: Callable[[str, bytes], bytes | None], **options: Any) -> bytes:
    """The same archive with each record changed, or left out."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", **options) as new:
        for name in old.namelist():
            record = change(name, old.read(name))
            if record is not None:
                new.writestr(name, record)
    return file.getvalue()


def with_pickle(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same archive with one thing in its pickle replaced."""

    def change(name: str, record: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return record
        assert old in record
        return record.replace(old, new, 1)

    return rebuilt(data, change)


def archive_of(pickled: bytes, storages: tuple[bytes, ...] = ()) -> bytes:
    """An archive as `torch.save` lays it out, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for number, storage in enumerate(storages):
            archive.writestr(f"archive/data/{number}", storage)
    return file.getvalue()


def refuse(data: bytes, match: str = "Failed to load tensor: ", suffix: str = "") -> str:
    """Check that the bytes are refused with an error of this library, and return its message."""
    with pytest.raises(ValueError, match=match) as caught:
        load_tensor(data, suffix=suffix)
    assert isinstance(caught.value, MediaError)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def sample(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(shape, generator=generator) * 4).to(dtype)


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    same = one.dtype == other.dtype and one.shape == other.shape
    return same and one.contiguous().flatten().view(torch.uint8).equal(
        other.contiguous().flatten().view(torch.uint8)
    )


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (2, 3, 4)], ids=str)
    def test_every_dtype_and_shape(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """What is dumped is loaded, bit for bit: a plain, dense tensor on the CPU."""
        tensor = sample(dtype, *shape)
        loaded = load_tensor(dump_tensor(tensor))
        assert equal(loaded, tensor)
        assert type(loaded) is torch.Tensor
        assert loaded.layout == torch.strided
        assert loaded.device.type == "cpu"

    def test_dump_is_what_torch_reads(self) -> None:
        """A dump is a `torch.save` archive, with nothing in it but the tensor."""
        tensor = sample(torch.bfloat16, 3, 4)
        assert equal(torch.load(io.BytesIO(dump_tensor(tensor)), weights_only=True), tensor)

    def test_dump_holds_no_more_than_is_shown(self) -> None:
        """A view is dumped without the storage behind it; a gradient stays at home."""
        view = torch.zeros(1_000_000, requires_grad=True)[10:20]
        assert len(dump_tensor(view)) < 4000
        loaded = load_tensor(dump_tensor(view))
        assert not loaded.requires_grad
        assert loaded.shape == (10,)

    @pytest.mark.parametrize("value", [[1.0], np.zeros(3), None, {"a": torch.zeros(1)}])
    def test_dump_takes_tensors_only(self, value: Any) -> None:
        """Anything else is the caller's mistake."""
        with pytest.raises(InvalidArgumentError, match=r"Not a torch\.Tensor"):
            dump_tensor(value)


class TestTorchArchives:
    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize(
        "tensor",
        [
            sample(torch.float32, 3, 4),
            sample(torch.float32, 4, 3).T,
            sample(torch.float32, 100)[10:14],
            sample(torch.float32, 1).expand(5, 4),
            sample(torch.int64, 2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.nn.Parameter(sample(torch.float32, 3)),
            sample(torch.complex64, 3).conj(),
            sample(torch.complex64, 3).conj().imag,
            torch.tensor(2.5),
        ],
        ids=["plain", "transposed", "view", "expanded", "channels last", "parameter", "conjugate", "negative",
             "scalar"],
    )  # fmt: skip
    def test_all_that_are_one_tensor(self, tensor: torch.Tensor, legacy: bool) -> None:
        """Views, parameters, lazy conjugates; in both formats: the values, detached, and no more."""
        loaded = load_tensor(save(tensor, _use_new_zipfile_serialization=not legacy))
        assert equal(loaded, tensor.detach().resolve_conj().resolve_neg())
        assert type(loaded) is torch.Tensor
        assert not loaded.requires_grad
        assert not loaded.is_conj()
        assert loaded.untyped_storage().nbytes() <= loaded.nbytes

    def test_tensor_of_a_gpu_lands_on_the_cpu(self) -> None:
        """Where the sender kept the tensor does not matter."""
        data = with_pickle(save(sample(torch.float32, 3)), b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:7")
        assert load_tensor(data).device.type == "cpu"

    def test_other_byte_order(self) -> None:
        """An archive of a big-endian machine holds the same numbers."""

        def swap(name: str, record: bytes) -> bytes:
            if name.endswith("byteorder"):
                return b"big"
            return np.frombuffer(record, ">f4").astype("<f4").tobytes() if "/data/" in name else record

        tensor = sample(torch.float32, 5)
        assert equal(load_tensor(rebuilt(save(tensor), swap)), tensor)

    def test_bools_are_bools(self) -> None:
        """A byte that is neither 0 nor 1 is True, and as 1: what else it does is undefined in torch."""

        def change(name: str, record: bytes) -> bytes:
            return b"\0\1\2\xff" if name.endswith("data/0") else record

        for data in (
            rebuilt(save(torch.zeros(4, dtype=torch.bool)), change),
            npy("{'descr': '|b1', 'fortran_order': False, 'shape': (4,), }\n", b"\0\1\2\xff"),
        ):
            assert load_tensor(data).view(torch.uint8).tolist() == [0, 1, 1, 1]

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"a": torch.zeros(2)}, "a dict, not a tensor"),
            (OrderedDict(a=torch.zeros(2)), "an OrderedDict, perhaps the state of a model, not a tensor"),
            ([torch.zeros(2)], "a list, not a tensor"),
            ((torch.zeros(2),), "a tuple, not a tensor"),
            ("text", "a str, not a tensor"),
            (7, "a int, not a tensor"),
            (None, "a NoneType, not a tensor"),
            (torch.Size([1, 2]), "torch.Size, not a tensor"),
            (torch.float32, "not a tensor"),
            (torch.zeros(2, device="meta"), "meta device"),
            (object, "pickled code or objects"),
            (os.system, "pickled code or objects"),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_what_is_not_a_tensor(self, value: object, message: str) -> None:
        """Everything else is named and refused, in both of torch's formats."""
        refuse(save(value), message)
        refuse(save(value, _use_new_zipfile_serialization=False), message)

    def test_quantised_nested_and_subclassed(self) -> None:
        """Tensors that no engine can take as an embedding are refused by what they are."""
        with quiet():
            quantised = torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)
            nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        refuse(save(quantised), "a quantised tensor")
        refuse(save(nested), "a nested tensor")
        attributed = torch.zeros(2)
        attributed.note = "mine"  # type: ignore[attr-defined]
        refuse(save(attributed), "subclass, or a tensor with attributes")
        parameter = torch.nn.Parameter(torch.zeros(2))
        parameter.note = "mine"  # type: ignore[attr-defined]
        refuse(save(parameter), "with attributes")

    def test_code_is_not_run(self, tmp_path: Any) -> None:
        """A pickle that would run a program runs nothing, in any of the wrappings."""
        target = tmp_path / "ran"

        class Attack:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(target),)

        for data in (
            pickle.dumps(Attack()),
            pickle.dumps(Attack(), 0),
            save(Attack()),
            save(Attack(), _use_new_zipfile_serialization=False),
            save_array(np.array([Attack()], dtype=object), allow_pickle=True),
            archive_of(pickle.dumps(Attack(), 4)),
        ):
            refuse(data)
        assert not target.exists()

    @pytest.mark.parametrize(
        "call",
        [
            b"ctorch\nFloatTensor\n\x8a\x06\0\0\0\0\0\x01\x85R.",
            b"cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
            b"c__builtin__\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
            b"ctorch.storage\nUntypedStorage\n\x8a\x06\0\0\0\0\0\x01\x85R.",
            b"ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
            b"ctorch\nTensor\n)\x81.",
            b"cnumpy\nzeros\n\x8a\x05\0\0\0\0\x01\x85R.",
            b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        ],
        ids=lambda call: repr(call[:24]),
    )
    def test_calls_that_torch_would_allow(self, call: bytes) -> None:
        """What `weights_only` admits beyond tensors, such as storages of any size, is not even tried."""
        refuse(archive_of(b"\x80\x02" + call))

    def test_hash_bomb(self) -> None:
        """Tuples of tuples of tuples, as a key: 2^60 steps to hash, and refused at once."""
        layers = b"".join(
            b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60)
        )
        refuse(archive_of(b"\x80\x02}K\x01q\0" + layers + b"K\x01s."))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (b"K\x0ct", b"J\xff\xff\xff\x7ft", "bytes were sent"),  # a storage of 2^31 - 1 items
            (b"K\x0ct", b"K\x0bt", "bytes were sent|outside"),
            (b"K\x0ct", b"J\xff\xff\xff\xfft", "negative"),
            (b"K\x0ct", b"\x88t", "outside its storage of 4 bytes"),
            (b"K\x03K\x04\x86", b"K\x03K\x05\x86", "outside its storage"),
            (b"K\x03K\x04\x86", b"J\xff\xff\xff\xffK\x04\x86", "negative"),
            (b"K\x03K\x04\x86", b"\x8a\x08" + b"\xff" * 7 + b"\x3fK\x04\x86", "outside its storage"),
            (b"K\x04K\x01\x86", b"K\x04K\x02\x86", "outside its storage"),
            (b"K\x04K\x01\x86", b"K\x04\x85", "two ranks"),
            (b"K\x04K\x01\x86", b"K\x04N\x86", "a NoneType where a int"),
            (b"FloatStorage", b"DoubleStorage", "bytes were sent"),
            (b"FloatStorage", b"QInt8Storage", "unknown kind"),
            (b"\x01\0\0\x000", b"\x01\0\0\x001", "0 bytes were sent"),
            (b"storage", b"storagf", "unknown kind"),
            (b"_rebuild_tensor_v2", b"_rebuild_tensor_v9", "not a tensor"),
            (b"collections\nOrderedDict", b"collections\nCounter", "pickled code or objects"),
        ],
        ids=lambda text: str(text)[:24],
    )
    def test_sizes_that_lie(self, old: bytes, new: bytes, message: str) -> None:
        """A storage longer than its bytes, an element outside its storage: found before torch sees them."""
        refuse(with_pickle(save(sample(torch.float32, 3, 4)), old, new), message)

    def test_legacy_storage_that_lies(self) -> None:
        """In the old format too, what is declared must have been sent."""
        data = save(sample(torch.float32, 3, 4), _use_new_zipfile_serialization=False)
        refuse(data.replace(b"K\x0cNt", b"J\xff\xff\xff\x7fNt"), "storages of 8589934588 bytes are declared")

    @pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    def test_compressed_archives(self, compression: int) -> None:
        """What could inflate is not opened."""
        data = rebuilt(save(torch.zeros(10_000)), lambda _, record: record, compression=compression)
        refuse(data, "compressed")

    def test_archives_that_torch_did_not_write(self) -> None:
        """Doubled records, comments, bytes before it, a missing pickle, TorchScript."""
        data = save(torch.zeros(3))
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = b"x"
        refuse(file.getvalue(), "behind its directory")
        file = io.BytesIO(data)
        with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
            warnings.simplefilter("ignore")
            archive.writestr("archive/data.pkl", b"other")
        refuse(file.getvalue(), "twice")
        refuse(rebuilt(data, lambda name, record: None if name.endswith("pkl") else record), "did not write")
        refuse(b"PK\x03\x04" + b"\0" * 26 + data, "did not write")
        refuse(with_constants(data), "TorchScript")
        refuse(b"PK\x03\x04 and no directory")
        refuse(data + b"behind it", "behind its directory")

    def test_long_directories_and_pickles(self) -> None:
        """A zip directory of 5 000 records, a pickle of 1 MB: refused unread."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for number in range(5000):
                archive.writestr(f"archive/{number}", b"")
        refuse(file.getvalue(), "too long for a single tensor")
        refuse(archive_of(b"\x80\x02" + b"N" * (1 << 20) + b"."), "too long for a single tensor")

    @pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.99])
    @pytest.mark.parametrize("legacy", [False, True])
    def test_truncated(self, share: float, legacy: bool) -> None:
        """Half a tensor is none."""
        data = save(sample(torch.float32, 100), _use_new_zipfile_serialization=not legacy)
        refuse(data[: int(len(data) * share)], "Failed to load tensor")

    def test_pickles_alone(self) -> None:
        """A plain pickle is no archive, and is told so."""
        refuse(pickle.dumps([1, 2], 2), "neither|no place|not a tensor")
        refuse(b"\x80\x02]q\0.", "neither a torch.save archive nor a NumPy array")


def with_constants(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
    return file.getvalue()


@pytest.fixture
def sparse_checks_off() -> Any:
    """The process-wide flag as torch has it by default, and as it was afterwards."""
    flag = torch.sparse.check_sparse_tensor_invariants
    assert not flag.is_enabled()
    yield flag
    flag.disable()


def coo(indices: Any, values: Any, size: Any) -> torch.Tensor:
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=False)


class TestSparse:
    @pytest.mark.parametrize("layout", ["coo", "hybrid", "csr", "csc", "bsr", "bsc"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
    def test_becomes_dense(self, layout: str, dtype: torch.dtype) -> None:
        """Every sparse layout is read, as a dense tensor, without a warning."""
        dense = torch.zeros(4, 6, dtype=dtype)
        dense[1, 2], dense[3, 5] = 2, 3
        with quiet():
            sparse = {
                "coo": dense.to_sparse,
                "hybrid": lambda: dense.to_sparse(1),
                "csr": dense.to_sparse_csr,
                "csc": dense.to_sparse_csc,
                "bsr": lambda: dense.to_sparse_bsr((2, 2)),
                "bsc": lambda: dense.to_sparse_bsc((2, 2)),
            }[layout]()
        loaded = load_tensor(save(sparse))
        assert equal(loaded, dense)

    def test_duplicate_indices_add_up(self) -> None:
        """Uncoalesced entries mean their sum."""
        assert load_tensor(save(coo([[1, 1]], [2.0, 3.0], (3,)))).tolist() == [0, 5, 0]

    @pytest.mark.parametrize("flag", [False, True])
    @pytest.mark.parametrize(
        "bad",
        [
            lambda: coo([[0, 3]], [1.0, 2.0], (3,)),
            lambda: coo([[0, -1]], [1.0, 2.0], (3,)),
            lambda: coo([[2**40]], [1.0], (3,)),
        ],
    )
    def test_indices_out_of_range(self, bad: Callable[[], Any], flag: bool, sparse_checks_off: Any) -> None:
        """Indices outside the tensor are refused, and the flag of the process stays as it was."""
        data = save(bad())
        if flag:
            sparse_checks_off.enable()
        refuse(data, "Failed to load tensor")
        assert sparse_checks_off.is_enabled() is flag

    def test_compressed_indices_out_of_range(self, sparse_checks_off: Any) -> None:
        """The same for rows and columns of a compressed layout."""
        with quiet():
            bad = torch.sparse_csr_tensor([0, 1, 2], [0, 9], [1.0, 2.0], (2, 2), check_invariants=False)
        refuse(save(bad), "Failed to load tensor")
        assert not sparse_checks_off.is_enabled()

    def test_claim_to_be_coalesced(self) -> None:
        """A flag in the archive that says there are no duplicates is not believed."""
        data = with_pickle(save(coo([[1, 1]], [2.0, 3.0], (3,))), b"\x89t", b"\x88t")
        assert load_tensor(data).tolist() == [0, 5, 0]

    def test_dense_size_is_judged_before_it_is_allocated(self) -> None:
        """One entry of a tensor of 4 TiB costs no memory to refuse."""
        data = save(coo([[0], [0]], [1.0], (1 << 20, 1 << 20)))
        tracemalloc.start()
        message = refuse(data, "VLLM_MAX_EMBED_DECODE_BYTES")
        assert "4398046511104 bytes" in message
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
        tracemalloc.stop()

    def test_sizes_that_lie(self) -> None:
        """Sizes of the wrong kind or sign, and sparse parts within sparse ones."""
        data = save(coo([[0], [0]], [1.0], (3, 5)))
        size = b"ctorch\nSize\n"
        refuse(with_pickle(data, b"K\x03K\x05\x86", b"K\x03J\xff\xff\xff\xff\x86"), "negative size")
        refuse(with_pickle(data, b"K\x03K\x05\x86", b"K\x03N\x86"), "a NoneType where a int")
        refuse(with_pickle(data, b"torch.sparse_coo", b"torch.sparse_cow"), "layout 'torch.sparse_cow'")
        refuse(with_pickle(data, size, b"ctorch\nSizf\n"))
        refuse(with_pickle(data, b"LongStorage", b"CharStorage"), "bytes were sent")

    @pytest.mark.parametrize("flag", [False, True])
    def test_threads_do_not_switch_it_off_for_each_other(self, flag: bool, sparse_checks_off: Any) -> None:
        """Good and bad ones at once, many times: the bad are refused, the good read, the flag untouched."""
        good, bad = coo([[0, 2]], [1.0, 2.0], (3,)), coo([[0, 3]], [1.0, 2.0], (3,))
        plain = torch.ones(3)
        data = [save(good), save(bad), save(plain)]
        if flag:
            sparse_checks_off.enable()
        barrier = threading.Barrier(8)

        def load(worker: int) -> list[str]:
            barrier.wait()
            results = []
            for turn in range(40):
                try:
                    results.append(str(load_tensor(data[(worker + turn) % 3]).tolist()))
                except InvalidMediaError:
                    results.append("refused")
            return results

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(load, range(8)))
        expected = ["[1.0, 0.0, 2.0]", "refused", "[1.0, 1.0, 1.0]"]
        for worker, answers in enumerate(results):
            assert answers == [expected[(worker + turn) % 3] for turn in range(40)]
        assert sparse_checks_off.is_enabled() is flag


class TestNumpy:
    @pytest.mark.parametrize(
        "dtype",
        [
            "?",
            "i1",
            "u1",
            "i2",
            "u2",
            "i4",
            "u4",
            "i8",
            "u8",
            "f2",
            "f4",
            "f8",
            "c8",
            "c16",
            ">i4",
            ">f8",
            ">u2",
            ">c8",
        ],
    )
    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_every_dtype_and_order(self, dtype: str, shape: tuple[int, ...], order: Any) -> None:
        """Numbers and bools, of either byte order, in either order of axes; the result is C-contiguous."""
        array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), order=order)
        loaded = load_tensor(save_array(array))
        assert loaded.is_contiguous()
        assert loaded.shape == shape
        np.testing.assert_array_equal(loaded.numpy(), array)
        loaded.fill_(1)  # its own memory, and writable

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
    def test_versions_of_the_format(self, version: tuple[int, int]) -> None:
        """All versions that NumPy writes."""
        array = np.arange(6.0).reshape(2, 3)
        assert load_tensor(save_array(array, version=version)).tolist() == array.tolist()

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }          \n",
            "{'shape': (3L,), 'fortran_order': False, 'descr': '<f4'}",
            '{"descr": "<f4", "fortran_order": False, "shape": (3, )}\n',
            "  { 'descr':'f4','fortran_order':True,'shape':(3,) }",
        ],
    )
    def test_headers_of_other_writers(self, header: str) -> None:
        """Other languages and old Pythons write the header with other spaces, quotes and order."""
        assert load_tensor(npy(header, np.ones(3, "<f4").tobytes())).tolist() == [1, 1, 1]

    def test_claim_of_32_gib_in_128_bytes(self) -> None:
        """The header is compared with the body before anything is allocated."""
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (8589934592,), }".ljust(117) + "\n"
        data = npy(header)
        assert len(data) == 128
        tracemalloc.start()
        refuse(data, "34359738368 bytes .*VLLM_MAX_EMBED_DECODE_BYTES")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()

    @pytest.mark.parametrize(
        ("header", "body", "message"),
        [
            ("{D: '<f4', F, S: (3,), }", b"\0" * 8, "declares 12 bytes and 8"),
            ("{D: '<f4', F, S: (3,), }", b"\0" * 16, "declares 12 bytes and 16"),
            ("{D: '<f4', F, S: (2, 10000), }", b"", "declares 80000 bytes and 0"),
            ("{D: '<f4', F, S: (-3,), }", b"", "can't be read"),
            ("{D: '<f4', F}", b"", "can't be read"),
            ("{D: '<f4', D: '<f4', S: (1,)}", b"\0" * 4, "can't be read"),
            ("{D: '<f4', 'fortran_order': 1, S: (1,)}", b"\0" * 4, "can't be read"),
            ("{D: '<f4', F, S: (1,), 'x': 1}", b"\0" * 4, "can't be read"),
            ("{D: '<f4', F, S: 3}", b"\0" * 12, "can't be read"),
            ("{D: '|O', F, S: (1,)}", b"\x80\x04N.", "dtype '|O'"),
            ("{D: [('a', '<f4')], F, S: (1,)}", b"\0" * 4, "dtype"),
            ("{D: '<M8[s]', F, S: (1,)}", b"\0" * 8, "dtype '<M8"),
            ("{D: '<U3', F, S: (1,)}", b"\0" * 12, "dtype '<U3'"),
            ("{D: '|S3', F, S: (1,)}", b"\0" * 3, "dtype"),
            ("{D: '|V2', F, S: (1,)}", b"\0" * 2, "dtype"),
            ("{D: '<f16', F, S: (1,)}", b"\0" * 16, "dtype '<f16'"),
            ("{D: 'f4,f4', F, S: (1,)}", b"\0" * 8, "dtype"),
            ("", b"", "can't be read"),
            ("__import__('os').abort()", b"", "can't be read"),
            ("(" * 5000, b"", "can't be read"),
            (" " * 60_000 + "{", b"", "can't be read"),
        ],
        ids=lambda text: str(text)[:40],
    )  # fmt: skip
    def test_headers_that_lie(self, header: str, body: bytes, message: str) -> None:
        """Sizes that don't fit, dtypes that are no numbers, text that is no header."""
        for letter, key in (
            ("D:", "'descr':"),
            ("F,", "'fortran_order': False,"),
            ("F}", "'fortran_order': False}"),
            ("S:", "'shape':"),
        ):
            header = header.replace(letter, key)
        refuse(npy(header, body), message.replace("|", r"\|").replace("[", r"\["))

    @pytest.mark.parametrize(
        "data",
        [
            b"\x93NUMPY", b"\x93NUMPY\x01", b"\x93NUMPY\x01\0\xff\xff{", b"\x93NUMPY\x02\0\xff\xff\xff\xff{",
            b"\x93NUMPY\x04\0\0\0\0\0", b"\x93NUMPY\x01\x07\0\0\0\0",
            b"\x93NUMPY\x03\0\0\0\0\x40" + b" " * 100,
        ],
    )  # fmt: skip
    def test_preambles_that_lie(self, data: bytes) -> None:
        """Header lengths beyond the data, versions that nobody wrote."""
        refuse(data, "NumPy")

    def test_object_arrays_and_archives(self) -> None:
        """Pickles inside an array, and the zip of several, are refused."""
        refuse(save_array(np.array([{}], dtype=object)), "dtype")
        file = io.BytesIO()
        np.savez(file, a=np.zeros(3))
        refuse(file.getvalue(), "Failed to load tensor")

    def test_magic_or_suffix_tells(self) -> None:
        """The magic number alone decides, unless the suffix asks for a NumPy array."""
        data = save_array(np.ones(2))
        assert load_tensor(data).tolist() == load_tensor(data, suffix=".pt").tolist() == [1, 1]
        assert load_tensor(data, suffix=".NPY").tolist() == [1, 1]
        refuse(save(torch.ones(2)), "not a NumPy array", suffix=".npy")


class TestLimit:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: save(torch.zeros(10)),
            lambda: save(torch.zeros(10), _use_new_zipfile_serialization=False),
            lambda: save(torch.zeros(1).expand(10)),
            lambda: save(coo([[1]], [1.0], (10,))),
            lambda: save_array(np.zeros(10, "f4")),
        ],
        ids=["torch", "legacy", "expanded", "sparse", "numpy"],
    )
    def test_dense_bytes(self, make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        """Exactly as many dense bytes pass, one less does not; 0 and less are no limit."""
        data = make()
        for limit in ("40", "0", "-5"):
            monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", limit)
            assert load_tensor(data).numel() == 10
        monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "39")
        with pytest.raises(LimitExceededError, match=r"of 10 elements takes 40 bytes .* 39 .*VLLM_MAX_EMBED"):
            load_tensor(data)


@lru_cache
def seeds() -> tuple[bytes, ...]:
    tensors = [torch.ones(3, 4), coo([[0, 1]], [1.0, 2.0], (3,)), torch.ones(3, dtype=torch.uint16)]
    arrays = [np.ones((3, 4), "f4"), np.ones(3, ">i8")]
    legacy = save(torch.ones(3), _use_new_zipfile_serialization=False)
    return (*map(save, tensors), legacy, *map(save_array, arrays))


def damage(record: bytes, data: st.DataObject) -> bytes:
    damaged = bytearray(record)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(
            st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)
        )
    return bytes(damaged)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_mutations_load_or_are_media_errors(data: st.DataObject) -> None:
    """Any damage, also to a pickle whose archive is whole again, ends in a tensor or in the one error."""
    seed = data.draw(st.sampled_from(seeds()))
    if seed.startswith(b"PK") and data.draw(st.booleans()):
        seed = rebuilt(seed, lambda name, record: damage(record, data) if "pkl" in name else record)
    else:
        seed = damage(seed, data)
    try:
        loaded = load_tensor(seed)
    except MediaError as error:
        message = str(error)
    else:
        message = ""
        assert loaded.layout == torch.strided
    assert len(message) < 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_loads_can_load() -> None:
    """Who holds the lock is not in the child, which would wait for it for ever."""
    record = save(torch.arange(3))
    with tensors._torch_lock, quiet():  # from Python 3.12 on a fork beside threads is warned of
        child = os.fork()
        if not child:
            signal.alarm(20)  # ends a child that waits
            os._exit(0 if load_tensor(record).tolist() == [0, 1, 2] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_pickle_builds_one_object() -> None:
    refuse(archive_of(b"\x80\x02]]."), "more than one object")
    refuse(archive_of(b"\x80\x02(]."), "more than one object")
