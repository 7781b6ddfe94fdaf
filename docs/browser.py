"""What a notebook shows, looked at by a real browser: the contact sheet and the player are on the page.

    python docs/browser.py [--out DIR]

A notebook is run in a kernel of its own, rendered to HTML, and opened in a headless Chromium, which is asked
what it loaded; a picture of the page is left in DIR (`docs/_build/browser`).
"""

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

PREPARE = """from pathlib import Path
from mmmedia.cli import scene
from mmmedia.cli.demo import Served, serve
Path("clip.mp4").write_bytes(scene.clip())
Path("speech.wav").write_bytes(scene.speech())
server = serve({"clip.mp4": Served("video/mp4", scene.clip())})
address = server.__enter__();"""
# A real S3 API on loopback, and the variables by which s3fs finds it.
PREPARE_S3 = """import logging, os, boto3
logging.getLogger("werkzeug").setLevel("ERROR")
from moto.server import ThreadedMotoServer
store = ThreadedMotoServer(port=0)
store.start()
os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_DEFAULT_REGION="us-east-1",
                  AWS_ENDPOINT_URL=f"http://127.0.0.1:{store._server.server_port}")
bucket = boto3.client("s3")
bucket.create_bucket(Bucket="bucket")
bucket.upload_file("clip.mp4", "bucket", "clip.mp4")"""
VIDEOS = (
    "import mmmedia as mm\nmm.load_video('clip.mp4')",
    "mm.load_video(Path('clip.mp4'), num_frames=6)",
    "mm.load_video(Path('clip.mp4').read_bytes(), num_frames=6)",
    "mm.load_video(open('clip.mp4', 'rb'), num_frames=6)",
    "mm.load_video(f'{address}/clip.mp4', num_frames=6)",
)
VIDEO_S3 = "mm.load_video('s3://bucket/clip.mp4', num_frames=6)"
SOUND = "mm.load_audio('speech.wav')"
HAS_S3 = bool(find_spec("moto") and find_spec("s3fs"))
# Asked once all is loaded: how large pictures are, how long sounds.
PROBE = """
<script>
addEventListener("load", async () => {
  const sounds = [...document.querySelectorAll("audio")];
  await Promise.all(sounds.map(each => each.readyState > 0 ? 0 : new Promise(done => {
    each.addEventListener("loadedmetadata", done); each.addEventListener("error", done); each.load();
  })));
  const found = {
    pictures: [...document.querySelectorAll("figure img")].map(
      each => [each.naturalWidth, each.naturalHeight]),
    sounds: sounds.map(each => each.duration),
    captions: [...document.querySelectorAll("figcaption")].map(each => each.innerText),
  };
  const note = document.createElement("pre");
  note.id = "probe"; note.hidden = true; note.textContent = JSON.stringify(found);
  document.body.append(note);
});
</script>
"""


def page(folder: Path) -> Path:
    """Run the notebook, and return it as HTML."""
    sources = [PREPARE, *VIDEOS, *([PREPARE_S3, VIDEO_S3] if HAS_S3 else []), SOUND]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    body, _ = HTMLExporter(embed_images=True).from_notebook_node(notebook)
    path = folder / "notebook.html"
    path.write_text(body.replace("</body>", f"{PROBE}</body>"))
    return path


def chromium(*arguments: str) -> str:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        sys.exit("There is no Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--virtual-time-budget=20000", *arguments,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "_build" / "browser")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = page(Path(folder))
        shutil.copy(path, out / "notebook.html")
    url = (out / "notebook.html").resolve().as_uri()
    document = chromium("--dump-dom", url)
    found = json.loads(html.unescape(re.search(r'<pre id="probe"[^>]*>(.*?)</pre>', document, re.DOTALL)[1]))
    print(json.dumps(found, indent=1))
    chromium("--window-size=1500,3200", f"--screenshot={out / 'notebook.png'}", url)
    *sheets, waveform = found["pictures"]
    assert len(sheets) == len(VIDEOS) + HAS_S3, "a contact sheet is missing"
    assert min(sheets[0]) > 300, "no contact sheet"
    assert all(sheet == sheets[1] for sheet in sheets[1:]), "the sources differ"
    assert waveform[0] == 720, "no waveform"
    assert found["sounds"] == [3], "no player"
    assert found["captions"][0].startswith("Video(32 of 192 frames"), "no caption"
    print(f"{out / 'notebook.png'}: the contact sheet and the player are on the page")


if __name__ == "__main__":
    main()
