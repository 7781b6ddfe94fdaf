"""Sparse tensors made dense."""

import threading

import pytest

from mmmedia.exceptions import VLLMValidationError
from mmmedia.media import audio, image
from mmmedia.utils.sparse_utils import check_sparse_tensor_invariants_threadsafe, safe_to_dense

torch = pytest.importorskip("torch")


def test_dense_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it would take, and not by what was sent; as much as is allowed passes."""
    sparse = torch.sparse_coo_tensor([[1]], [2.0], (10,), check_invariants=True)
    monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "40")
    assert safe_to_dense(sparse, parameter="image_embeds").tolist() == [0, 2, *[0] * 8]
    monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "39")
    with pytest.raises(VLLMValidationError, match="VLLM_MAX_EMBED_DECODE_BYTES") as caught:
        safe_to_dense(sparse, parameter="image_embeds")
    assert (caught.value.parameter, caught.value.http_status) == ("image_embeds", 400)
    monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "0")
    assert safe_to_dense(sparse, parameter="image_embeds").shape == (10,)


def test_no_tensor() -> None:
    with pytest.raises(VLLMValidationError, match="got a list") as caught:
        safe_to_dense([1.0], parameter="audio_embeds")
    assert caught.value.parameter == "audio_embeds"


def test_checks_are_of_one_thread_at_a_time() -> None:
    """Nobody's leaving switches them off for another."""
    bad = [0, 0]
    entered = threading.Event()
    missed: list[object] = []

    def make() -> None:
        entered.wait(10)
        with check_sparse_tensor_invariants_threadsafe():
            try:
                missed.append(torch.sparse_coo_tensor([[7]], [1.0], (2,)))
            except RuntimeError:
                bad[0] += 1

    thread = threading.Thread(target=make)
    thread.start()
    with check_sparse_tensor_invariants_threadsafe():
        entered.set()
        try:
            missed.append(torch.sparse_coo_tensor([[7]], [1.0], (2,)))
        except RuntimeError:
            bad[1] += 1
    thread.join()
    assert (bad, missed) == ([1, 1], [])


def test_one_lock_for_all() -> None:
    """Of pictures' and sounds' embeddings too, by the name at which engines look for it."""
    expected = check_sparse_tensor_invariants_threadsafe
    assert audio.check_sparse_tensor_invariants_threadsafe is expected
    assert image.check_sparse_tensor_invariants_threadsafe is expected
