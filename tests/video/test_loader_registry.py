"""The registry of video loaders: names, video processors, GPUs."""

import subprocess
import sys

from mmmedia.video import VIDEO_LOADER_REGISTRY, VideoLoader, VideoLoaderRegistry


def test_a_loader_may_be_bound_to_processors() -> None:
    """One name or several; the last binding of a processor wins."""
    registry: VideoLoaderRegistry[object] = VideoLoaderRegistry()
    registry.register("one", video_processor="AVideoProcessor")(type("One", (), {}))
    registry.register("two", video_processor=("BVideoProcessor", "CVideoProcessor"))(type("Two", (), {}))
    registry.register("three")(type("Three", (), {}))
    found = [registry.get_backend_for_video_processor(f"{name}VideoProcessor") for name in "ABCD"]
    assert found == ["one", "two", "two", None]
    registry.register("three", video_processor="BVideoProcessor")(registry.get("three"))
    assert registry.get_backend_for_video_processor("BVideoProcessor") == "three"
    assert sorted(registry) == ["one", "three", "two"]


def test_what_needs_a_gpu() -> None:
    """Loaders say so when they are registered, decoders by name."""
    registry: VideoLoaderRegistry[object] = VideoLoaderRegistry()
    registry.register("fast", requires_gpu=True)(type("Fast", (), {}))
    registry.register("slow")(type("Slow", (), {}))
    registry.register_gpu_codec("chip")
    assert [registry.backend_requires_gpu(name) for name in ("fast", "slow", "chip", "no")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_the_built_in_ones() -> None:
    """NVDEC's loader and the two decoders on GPUs are marked, before any of them is loaded."""
    need = {name for name in (*VIDEO_LOADER_REGISTRY, "deepstream", "torchcodec") if
            VIDEO_LOADER_REGISTRY.backend_requires_gpu(name)}  # fmt: skip
    assert need == {"pynvvideocodec", "deepstream"}
    assert issubclass(VIDEO_LOADER_REGISTRY.get("pynvvideocodec"), VideoLoader)


def test_loaders_of_models_are_loaded_when_used() -> None:
    """Neither the registry nor a binding that is looked up imports them; their names are there already."""
    code = (
        "import sys; from mmmedia.video import VIDEO_LOADER_REGISTRY as r;"
        "assert 'qwen3_vl' in r and 'mmmedia.video.model_loaders' not in sys.modules;"
        "assert r.get_backend_for_video_processor('GlmgaVideoProcessor') == 'glmga';"
        "assert 'mmmedia.video.model_loaders' not in sys.modules;"
        "r.load('glmga'); assert 'mmmedia.video.model_loaders' in sys.modules;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
