"""What loading returns shows itself."""

import base64
import copy
import io
import pickle
import re
import sys
import types
import wave

import numpy as np
import pytest
from PIL import Image, ImageShow

import mmmedia
from mmmedia import Audio, Video
from mmmedia.loading.results import _amount
from support.clips import clip

FRAMES = np.arange(4 * 90 * 160 * 3, dtype=np.uint8).reshape(4, 90, 160, 3)
METADATA = {
    "total_num_frames": 7200, "fps": 24.0, "duration": 300.0, "video_backend": "opencv",
    "frames_indices": [0, 10, 20, 30], "do_sample_frames": False,
}  # fmt: skip
WAVEFORM = np.linspace(-1, 1, 8000, dtype=np.float32)


def video(**changes: object) -> Video:
    return Video(FRAMES, {**METADATA, **changes})


def test_a_video_is_a_tuple_of_frames_and_metadata() -> None:
    """It unpacks, and has names for its parts."""
    frames, metadata = result = video()
    assert isinstance(result, tuple)
    assert frames is result.frames is result[0]
    assert metadata is result.metadata is result[1]
    assert (result.width, result.height, len(result)) == (160, 90, 2)
    assert result.timestamps == [0, 10 / 24, 20 / 24, 30 / 24]
    assert video(fps=0.0).timestamps == []


def test_its_line_says_what_there_is() -> None:
    """In one line; without what is not known."""
    assert repr(video()) == "Video(4 of 7200 frames, 160x90, 24 fps, 300 s, 172.8 kB)"
    assert repr(video(fps=0.0, duration=0.0)) == "Video(4 of 7200 frames, 160x90, 172.8 kB)"
    assert repr(video(fps=30000 / 1001)) == "Video(4 of 7200 frames, 160x90, 29.97 fps, 300 s, 172.8 kB)"
    assert [_amount(size) for size in (0, 999, 25_000_000_000)] == ["0 bytes", "999 bytes", "25 GB"]


def test_results_travel_and_are_the_same_afterwards() -> None:
    """Pickled and copied, with the times that the packets gave."""
    told = Video(FRAMES, METADATA, [0.0, 1.5, 3.25, 9.0])
    for again in (pickle.loads(pickle.dumps(told)), copy.deepcopy(told), copy.copy(told)):
        assert type(again) is Video
        assert np.array_equal(again.frames, FRAMES)
        assert (again.metadata, again.timestamps) == (METADATA, told.timestamps)
    for again in (pickle.loads(pickle.dumps(sound := Audio(WAVEFORM, 8000))), copy.deepcopy(sound)):
        assert type(again) is Audio
        assert np.array_equal(again.waveform, WAVEFORM)
        assert again.sampling_rate == 8000


def test_tensors_are_as_models_take_them() -> None:
    """Channels first; the memory is the array's."""
    torch = pytest.importorskip("torch")
    frames = FRAMES.copy()
    tensor = Video(frames, METADATA).to_tensor()
    assert (tensor.shape, tensor.dtype) == ((4, 3, 90, 160), torch.uint8)
    frames[1, 2, 3, 0] = 77
    assert tensor[1, 0, 2, 3] == 77
    assert Audio(WAVEFORM, 8000).to_tensor().shape == (8000,)


def test_transformers_take_the_metadata() -> None:
    """Its class refuses what it does not know."""
    pytest.importorskip("torch")
    video_utils = pytest.importorskip("transformers.video_utils")
    made = video_utils.VideoMetadata(**video().hf_metadata())
    assert (made.width, made.height, made.total_num_frames) == (160, 90, 7200)
    assert made.frames_indices == [0, 10, 20, 30]


def _pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_a_notebook_is_shown_a_contact_sheet() -> None:
    """As HTML and as PNG; the caption is the line."""
    result = mmmedia.load_video(clip(frames=30), num_frames=6)
    text = result._repr_html_()
    (sheet,) = _pictures(text)
    assert sheet.size == result.sheet().size
    assert f'<figcaption style="font-family: monospace">{result!r}</figcaption>' in text
    png = Image.open(io.BytesIO(result._repr_png_()))
    assert np.array_equal(np.asarray(png), np.asarray(result.sheet()))
    assert result.sheet(columns=2).height > result.sheet(columns=6).height > result.sheet(most=2).height / 2


def test_a_sheet_shows_true_times() -> None:
    """Other times, another sheet."""
    assert Video(FRAMES, METADATA, [0.0, 1, 2, 3]).sheet().tobytes() != video().sheet().tobytes()


def test_a_notebook_is_shown_a_waveform_and_a_player() -> None:
    """The player plays these very samples."""
    sound = Audio(np.stack([WAVEFORM, WAVEFORM[::-1] * 2]), 8000)
    assert repr(sound) == "Audio(1 s, 8000 Hz, stereo, 64.0 kB)"
    text = sound._repr_html_()
    assert len(_pictures(text)) == 1
    (encoded,) = re.findall(r'<audio controls [^>]*src="data:audio/wav;base64,([^"]+)"', text)
    with wave.open(io.BytesIO(base64.b64decode(encoded))) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 8000)
        samples = np.frombuffer(file.readframes(8000), "<i2").reshape(-1, 2) / 32767
    assert samples[:, 0] == pytest.approx(WAVEFORM, abs=1e-4)
    assert samples[:, 1].max() == 1.0  # beyond full scale is clipped
    assert Image.open(io.BytesIO(sound._repr_png_())).size == sound.sheet().size


def test_hours_of_sound_are_not_put_into_a_notebook() -> None:
    """Its file would hold them; the words say why there is no player."""
    text = Audio(np.zeros(7000, np.float32), 10)._repr_html_()
    assert "<audio" not in text
    assert "no player for more than 600 s" in text
    assert repr(Audio(np.zeros((6, 10), np.float32), 10)).startswith("Audio(1 s, 10 Hz, 6 channels")


def test_show_opens_the_picture_viewer_or_displays(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook the result itself, elsewhere a picture; nothing is printed."""
    opened: list[Image.Image] = []
    monkeypatch.setattr(ImageShow, "_viewers", [])

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image.Image, **options: object) -> bool:
            opened.append(image)
            return True

    ImageShow.register(Viewer())
    video().show()
    Audio(WAVEFORM, 8000).show()
    assert [each.size for each in opened] == [video().sheet().size, Audio(WAVEFORM, 8000).sheet().size]
    displayed: list[object] = []
    shell = type("ZMQInteractiveShell", (), {})
    getipython = types.SimpleNamespace(get_ipython=shell)
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", getipython)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=displayed.append))
    (result := video()).show()
    assert displayed == [result]
    assert len(opened) == 2
    monkeypatch.setitem(sys.modules, "IPython.core.getipython", None)
    result.show()
    assert len(opened) == 3
