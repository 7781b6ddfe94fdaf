"""The console script `mmmedia`, also `python -m mmmedia`."""


def main() -> None:
    """Run the command line."""
    from mmmedia.cli import app

    app(prog_name="mmmedia")


if __name__ == "__main__":
    main()
