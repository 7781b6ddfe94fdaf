"""A frontend of a real vLLM, without an engine: it renders chats, tensors and all, and needs no GPU.

with Frontend("mmmedia") as frontend:
    frontend.wait()
    status, answer = frontend.ask([image_part(url)])
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parent.parent / "integrations" / "vllm_real" / "tiny-qwen3-vl"
STARTS_WITHIN_S = 1500  # where the machine is busy
ANSWERS_WITHIN_S = 120

Part = dict[str, Any]


def image_part(url: str) -> Part:
    return {"type": "image_url", "image_url": {"url": url}}


def video_part(url: str) -> Part:
    return {"type": "video_url", "video_url": {"url": url}}


class Frontend:
    """One process of vLLM's that serves what it would hand to a model.

    Args:
        connector: the name that `VLLM_MEDIA_CONNECTOR` has.
        environment: variables beside those.
        arguments: of the command line, beside what it takes to start.
    """

    def __init__(
        self, connector: str, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "vllm.entrypoints.launchers.render.entry"]
        command += [
            "--model",
            MODEL.name,
            "--dtype",
            "float32",
            "--enforce-eager",
            "--max-model-len",
            "16384",
        ]
        command += ["--mm-processor-cache-gb", "0", "--trust-request-mm-kwargs"]
        command += ["--limit-mm-per-prompt", '{"image": 8, "video": 2}']
        command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            command,
            cwd=MODEL.parent,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={
                **{name: text for name, text in os.environ.items() if not name.startswith("VLLM_")},
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONHASHSEED": "0",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_MEDIA_CONNECTOR": connector,
                **(environment or {}),
            },
        )

    def __enter__(self) -> "Frontend":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._output.close()

    def wait(self) -> "Frontend":
        """Wait until it answers."""
        end = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self._get("/health")
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"The frontend does not start:\n{self.log()[-4000:]}") from None
                time.sleep(0.5)
            else:
                return self

    def ask(self, parts: Sequence[Part], **extra: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the answer to a message of these parts."""
        body = {"model": MODEL.name, "messages": [{"role": "user", "content": list(parts)}], **extra}
        request = urllib.request.Request(
            f"{self.address}/v1/chat/completions/render",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def metrics(self) -> dict[str, float]:
        """Return what it counts, by name and labels."""
        lines = self._get("/metrics").decode().splitlines()
        samples = [line.rpartition(" ") for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def cpu_seconds(self) -> float:
        """Return what all threads of the process have used of the processors."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        """Return what it has written so far."""
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=ANSWERS_WITHIN_S) as answer:
            body: bytes = answer.read()
            return body


def tensors(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a model would be given: token ids, where media stand among them, and their tensors."""
    features = answer["features"]
    return {
        "token_ids": answer["token_ids"],
        **{name: features[name] for name in ("mm_placeholders", "kwargs_data")},
    }
