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
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

CELLS = (
    """from pathlib import Path
from mmmedia.cli import scene
Path("clip.mp4").write_bytes(scene.clip())
Path("speech.wav").write_bytes(scene.speech());""",
    "import mmmedia as mm\nmm.load_video('clip.mp4')",
    "mm.load_audio('speech.wav')",
)
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
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
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
    chromium("--window-size=1500,2000", f"--screenshot={out / 'notebook.png'}", url)
    sheet, waveform = found["pictures"]
    assert min(sheet) > 300, "no contact sheet"
    assert waveform[0] == 720, "no waveform"
    assert found["sounds"] == [3], "no player"
    assert found["captions"][0].startswith("Video(32 of 192 frames"), "no caption"
    print(f"{out / 'notebook.png'}: the contact sheet and the player are on the page")


if __name__ == "__main__":
    main()
