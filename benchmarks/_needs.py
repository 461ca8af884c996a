"""Imported first by benchmarks that need more than the service does: says what to install, instead of a traceback."""

import sys
from types import TracebackType


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ModuleNotFoundError):
        extra = "bulk" if error.name == "pyarrow" else "train"
        sys.stderr.write(
            f"error: {error.name} is not installed: this benchmark needs `pip install 'aerofix[{extra}]'`, and of the "
            "service aerofix[cpu] or aerofix[gpu]; in a checkout, `make test` installs all of it.\n"
        )
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _say
