"""The program ``aerofix``, also as ``python -m service.cli``."""

import signal


def main() -> None:
    """Run ``aerofix``. While its parts are loaded, which takes a second or more, Ctrl-C ends it without a word.

    The exception that Python raises for it instead, wherever it is, gets lost there: some libraries take it for an
    error of their own, and the command would go on to its end.
    """
    quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else a shell has it ignored
    if quiet:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from service.cli.main import main as run

    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
