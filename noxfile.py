"""The sessions: `nox` runs lint, types and tests; the others run on demand (`nox -s docs`)."""

import nox
from packaging.requirements import Requirement

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True

CONSTRAINTS = ("-c", "constraints.txt")
# torch by its exact pin: a looser range may pick a build with gigabytes of GPU libraries.
TORCH = "torch==2.13.0"


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
    coverage = ["--cov=mmmedia", "--cov-report=term-missing:skip-covered", "--cov-fail-under=97"]
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
def bench(session: nox.Session) -> None:
    install_project(session, "docs")
    for name in session.posargs or ["image", "audio", "cache", "video", "connector", "pipeline"]:
        session.run("python", f"benchmarks/{name}.py")


@nox.session
def fuzz(session: nox.Session) -> None:
    install_project(session, "dev")
    session.run("pytest", "-m", "slow", "--timeout=0", "-s", *session.posargs)
