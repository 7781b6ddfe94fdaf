"""The embedding IOs: tensors by bytes, by base64, by file."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmedia import media
from mmmedia.errors import LimitExceededError, MediaError
from mmmedia.exceptions import VLLMValidationError
from mmmedia.media.base import MediaIO
from mmmedia.media.embedding import EmbeddingMediaIO

NAMES = ["ImageEmbeddingMediaIO", "AudioEmbeddingMediaIO", "VideoEmbeddingMediaIO"]


@pytest.fixture(params=NAMES)
def embedding_io(request: pytest.FixtureRequest) -> EmbeddingMediaIO:
    """Each of the three; they are made without arguments."""
    made = getattr(media, request.param)()
    assert isinstance(made, MediaIO)
    assert isinstance(made, EmbeddingMediaIO)
    return made


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.uint8, torch.bool], ids=str
)
def test_round_trip(embedding_io: EmbeddingMediaIO, dtype: torch.dtype, tmp_path: Path) -> None:
    """Encoded text is a `torch.save` archive, and comes back the same by all three loads."""
    tensor = (torch.arange(12).reshape(3, 4) % 5).to(dtype)
    text = embedding_io.encode_base64(tensor)
    data = base64.b64decode(text, validate=True)
    assert torch.load(io.BytesIO(data), weights_only=True).equal(tensor)
    (tmp_path / "a.pt").write_bytes(data)
    for loaded in (
        embedding_io.load_base64("", text),
        embedding_io.load_bytes(data),
        embedding_io.load_file(tmp_path / "a.pt"),
        embedding_io.load_file(str(tmp_path / "a.pt")),  # type: ignore[arg-type]
    ):
        assert loaded.dtype == dtype
        assert loaded.equal(tensor)


def test_numpy_files(embedding_io: EmbeddingMediaIO, tmp_path: Path) -> None:
    """A NumPy array is known by its magic number under any name; a file named so must be one."""
    array = np.arange(6, dtype="f4").reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.bin").write_bytes(data)
    for loaded in (
        embedding_io.load_file(tmp_path / "a.npy"),
        embedding_io.load_file(tmp_path / "a.bin"),
        embedding_io.load_bytes(data),
        embedding_io.load_base64("application/x-npy", base64.b64encode(data).decode()),
    ):
        assert loaded.tolist() == array.tolist()
    torch.save(torch.ones(1), tmp_path / "b.npy")
    with pytest.raises(ValueError, match="not a NumPy array"):
        embedding_io.load_file(tmp_path / "b.npy")


def test_errors(embedding_io: EmbeddingMediaIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad base64, no tensor, too large a tensor, no file: each its own clear error."""
    with pytest.raises(ValueError, match="base64"):
        embedding_io.load_base64("", "not base64!")
    with pytest.raises(MediaError, match="Failed to load tensor: no data"):
        embedding_io.load_base64("", "")
    with pytest.raises(ValueError, match="Failed to load tensor"):
        embedding_io.load_bytes(b"hello")
    with pytest.raises(FileNotFoundError):
        embedding_io.load_file(tmp_path / "missing.pt")
    text = embedding_io.encode_base64(torch.ones(3))
    monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "11")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_EMBED_DECODE_BYTES"):
        embedding_io.load_base64("", text)


def test_one_that_is_too_large_names_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM says it; 0.20 did not look."""
    monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "10")
    file = io.BytesIO()
    np.save(file, np.zeros(9, np.float32))
    with pytest.raises(VLLMValidationError, match="VLLM_MAX_EMBED_DECODE_BYTES") as caught:
        media.ImageEmbeddingMediaIO().load_bytes(file.getvalue())
    assert isinstance(caught.value, LimitExceededError)
    assert (caught.value.parameter, caught.value.http_status) == ("image_embeds", 400)
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    with pytest.raises(LimitExceededError) as plain:
        media.ImageEmbeddingMediaIO().load_bytes(file.getvalue())
    assert not isinstance(plain.value, VLLMValidationError)
