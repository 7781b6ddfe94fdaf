"""`mmmedia inspect`: what it says of good media, and that bad ones cost one line."""

import base64
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmmedia.cli import scene
from mmmedia.cli.report import InspectIO
from support import command_line
from support.clips import clip
from support.server import Server, reply


def run(*arguments: object, **keywords: object):
    return command_line.run("inspect", *arguments, **keywords)


def report(*arguments: object) -> dict:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def picture(image_format: str = "PNG", frames: int = 1, **options: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (frames, 30, 40, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    more = {"save_all": True, "append_images": images[1:], "duration": 100} if frames > 1 else {}
    images[0].save(file, image_format, **more, **options)
    return file.getvalue()


def sound(audio_format: str = "WAV", channels: int = 2) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((4000, channels)) + 0.1, 8000, format=audio_format)
    return file.getvalue()


def array() -> bytes:
    pytest.importorskip("torch")
    file = io.BytesIO()
    np.save(file, np.zeros((3, 4), np.float16))
    return file.getvalue()


def archive() -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(torch.zeros(2, 5, dtype=torch.bfloat16), file)
    return file.getvalue()


def data_url(data: bytes, media_type: str = "application/octet-stream") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


GOOD = {
    "png": (picture, {"kind": "image", "format": "PNG", "width": 40, "height": 30, "mode": "RGB"}),
    "jpg": (lambda: picture("JPEG"), {"kind": "image", "format": "JPEG"}),
    "avif": (lambda: picture("AVIF"), {"kind": "image", "format": "AVIF"}),
    "webp": (lambda: picture("WEBP"), {"kind": "image", "format": "WEBP", "frames": 1}),
    "moving.webp": (lambda: picture("WEBP", 3), {
        "kind": "video", "container": "webp", "frames": 3, "width": 40, "height": 30}),
    "moving.png": (lambda: picture("PNG", 4), {"kind": "video", "container": "png", "frames": 4}),
    "moving.avif": (lambda: picture("AVIF", 5), {"kind": "video", "frames": 5, "fps": 10.0}),
    "pages.tiff": (lambda: picture("TIFF", 2), {"kind": "image", "frames": 2}),
    "still.gif": (lambda: picture("GIF"), {"kind": "image", "format": "GIF"}),
    "moving.gif": (lambda: picture("GIF", 4), {"kind": "video", "container": "gif", "frames": 4}),
    "wav": (sound, {"kind": "audio", "container": "WAV", "codec": "PCM_16", "channels": 2,
                    "sampling_rate": 8000, "samples": 4000, "duration": 0.5}),
    "flac": (lambda: sound("FLAC"), {"kind": "audio", "container": "FLAC"}),
    "nist": (lambda: sound("NIST"), {"kind": "audio", "container": "NIST"}),
    "mp4": (lambda: clip(audio=True), {
        "kind": "video", "codec": "h264", "pixel_format": "yuv420p", "width": 128, "height": 96, "frames": 60,
        "fps": 25.0, "duration": 2.4, "packets": 60, "key_frames": [0, 20, 40],
        "audio": {"codec": "aac", "sampling_rate": 48000, "channels": 2}}),
    "webm": (lambda: clip(container="webm", codec="libvpx-vp9"), {"codec": "vp9", "audio": None}),
    "npy": (array, {"kind": "embedding", "format": "npy", "shape": [3, 4], "dtype": "float16"}),
    "pt": (archive, {"kind": "embedding", "format": "torch", "shape": [2, 5], "dtype": "bfloat16"}),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_says_what_a_file_is(name: str, tmp_path: Path) -> None:
    """Kind, format and numbers, whatever the file is called."""
    make, expected = GOOD[name]
    data = make()
    path = tmp_path / "a file with [brackets]"
    path.write_bytes(data)
    found = report(path)
    assert found["source"] == str(path)
    assert found["bytes"] == len(data)
    assert {key: found.get(key) for key in expected} == expected
    shown = run(path)
    assert shown.exit_code == 0
    assert "[brackets]" in shown.stdout
    assert shown.stderr == ""


def test_sound_that_only_ffmpeg_reads(tmp_path: Path) -> None:
    """The sound of an MP4 without pictures."""
    import av

    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = report(path)
    assert (found["kind"], found["codec"], found["channels"], found["sampling_rate"]) == (
        "audio",
        "aac",
        1,
        16_000,
    )


def test_says_what_each_sampler_picks() -> None:
    """The indices are those that the loaders return for the same options."""
    from mmmedia.video import VIDEO_LOADER_REGISTRY

    data = clip()
    found = report("--num-frames", 5, "--fps", 3, data_url(data))
    picks = [(pick["loader"], pick["options"], pick["count"]) for pick in found["samplers"]]
    uniform = {"frame_sample_mode": "uniform_last_frame", "max_fps": 3.0, "num_frames": 5}
    assert picks == [
        ("opencv", {"num_frames": 5}, 5),
        ("opencv_dynamic", {"fps": 3.0}, 7),
        ("molmo2", {}, 60),
        ("molmo2", uniform, 5),
    ]
    for pick in found["samplers"]:
        _, metadata = VIDEO_LOADER_REGISTRY.get(pick["loader"]).load_bytes(data, **pick["options"])
        assert metadata["frames_indices"] == pick["indices"]


def test_a_sampler_that_would_refuse_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame would exceed the limit; the other samplers still answer."""
    monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(128 * 96 * 3 * 40))
    found = report(data_url(clip()))
    assert ["error" in pick for pick in found["samplers"]] == [False, False, True, False]
    assert "VLLM_MAX_VIDEO_DECODE_BYTES" in found["samplers"][2]["error"]
    assert "VLLM_MAX_VIDEO_DECODE_BYTES" in run(data_url(clip())).stdout.replace("\n", "")


class _Pinned(type(Path())):
    """A path that opens another file than the one that its name leads to by now."""

    def __fspath__(self) -> str:
        return str(self.with_name("checked.png"))


def test_reads_the_very_file_that_was_checked(tmp_path: Path) -> None:
    """A path made anew from the one that is given would lead to what lies there now."""
    (tmp_path / "checked.png").write_bytes(picture())
    (tmp_path / "name.png").write_bytes(sound())
    assert InspectIO().load_file(_Pinned(tmp_path / "name.png"))["kind"] == "image"


def test_a_sequence_of_pictures() -> None:
    """A data URL of the type video/jpeg holds frames, already sampled."""
    frames = ",".join(base64.b64encode(picture("JPEG")).decode() for _ in range(3))
    url = f"data:video/jpeg;base64,{frames}"
    found = report(url)
    assert (found["kind"], found["frames"], found["container"]) == ("video", 3, "jpeg_sequence")
    assert found["source"].startswith("data:video/jpeg;base64,")
    assert len(found["source"]) <= 64
    assert run(url).exit_code == 0


def test_urls(server: Server, tmp_path: Path) -> None:
    """HTTP through the connector, without its credentials in the output, and file URLs."""
    server.route("/cat.png", reply(picture()))
    address = server.url("/cat.png").replace("http://", "http://me:secret@")
    found = run("--json", address)
    assert json.loads(found.stdout)["kind"] == "image"
    assert "secret" not in found.output
    path = tmp_path / "ä cat.png"
    path.write_bytes(picture())
    assert report(path.as_uri())["width"] == 40


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is looked up from the working directory, and may look like no URL that it is not."""
    monkeypatch.chdir(tmp_path)
    Path("a:b.png").write_bytes(picture())
    assert report("a:b.png")["kind"] == "image"


def test_several_sources_are_an_array_with_errors_inside(tmp_path: Path) -> None:
    """The document is whole though one source fails; the exit status tells."""
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture())
    bad.write_bytes(picture()[:600])
    result = run("--json", bad, good, tmp_path / "none")
    assert result.exit_code == 1
    assert result.stderr == ""
    failed, found, missing = json.loads(result.stdout)
    assert failed.keys() == missing.keys() == {"source", "error"}
    assert failed["error"].startswith("Failed to load image")
    assert "No such file" in missing["error"]
    assert found["kind"] == "image"


def test_json_lines_and_standard_input(tmp_path: Path) -> None:
    """A document a line; `-` is what is piped in, and nothing is an error."""
    path = tmp_path / "a.png"
    path.write_bytes(picture())
    result = run("-", path, "--jsonl", stdin=sound())
    kinds = [json.loads(line)["kind"] for line in result.stdout.splitlines()]
    assert (result.exit_code, kinds) == (0, ["audio", "image"])
    empty = run("-", stdin=b"")
    assert (empty.exit_code, empty.stderr) == (1, "mmmedia: standard input: It is empty.\n")


def test_lists_stand_on_one_line(tmp_path: Path) -> None:
    """For people who look at JSON."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip())
    text = run(path, "--json").stdout
    assert '  "key_frames": [0, 20, 40],\n' in text
    assert len(text.splitlines()) < 60


CONCAT = b"ffconcat version 1.0\nfile secret.mp4\n"
SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
BAD = {
    "empty": (b"", "empty"),
    "text": (b"just some words in a file\n" * 9, "container"),
    "concat": (CONCAT, "concat script"),
    "sdp": (SDP, "SDP text"),
    "playlist": (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "M3U playlist"),
    "short": (b"\0\0\0", "container"),
    "half a png": (picture()[:700], "Failed to load image"),
    "half a jpeg": (picture("JPEG")[:400], "Failed to load image"),
    "half an mp4": (clip()[:3000], "cut short before its index"),
    "garbage behind a wav header": (sound()[:44] + b"\xff" * 9, "audio"),
    "a zip": (b"PK\x03\x04" + b"\0" * 60, "tensor"),
    "half an npy": (array()[:-4], "tensor"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The source and the reason on stderr, nothing else, and nothing past Python either."""
    data, said = BAD[name]
    path = tmp_path / "bad.mp4"
    path.write_bytes(data)
    (tmp_path / "secret.mp4").write_bytes(clip())
    result = run(path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"mmmedia: {path}: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("ftp://example.org/x", "Refused scheme 'ftp'"),
        ("data:image/png;base64,AAAA", "container"),
        ("data:image/png,AAAA", "base64"),
        ("data:", "missing ','"),
        ("", "not a regular file"),
        (".", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("a\nb\x1b[31m\udcff", "No such file"),
    ],
)
def test_bad_sources(source: str, said: str) -> None:
    """URLs of other kinds, directories, devices, names with control characters: one line each."""
    result = run(source)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_what_is_no_media_is_not_cached(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is no media is refused, and asked for anew the next time; a picture is kept."""
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    server.route("/page", reply(b"<html>not found, politely</html>"))
    server.route("/cat", reply(picture()))
    for _ in range(2):
        assert run(server.url("/page")).exit_code == 1
        assert run(server.url("/cat")).exit_code == 0
    assert (server.count("/page"), server.count("/cat")) == (2, 1)


def test_verbose_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`--verbose` keeps the traceback in the log, for who wants it."""
    logger = logging.getLogger("mmmedia")
    level = logger.level
    try:
        with caplog.at_level(logging.DEBUG, "mmmedia.cli"):
            command_line.run("--verbose", "inspect", tmp_path / "none")
    finally:
        logger.setLevel(level)
    assert "LocalFileNotFoundError" in caplog.text


def test_as_a_library() -> None:
    """`InspectIO` is a media IO as others are, for connectors."""
    assert InspectIO().load_bytes(scene.speech())["duration"] == 3.0
