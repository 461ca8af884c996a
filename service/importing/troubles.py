"""What went wrong with an import, as it is stored: public names, which stay when classes are renamed."""

from service.errors import AerofixError
from service.ground.store.imports import Trouble
from service.http.problems import INTERNAL, slug_of


def trouble_of(error: AerofixError, item: str | None = None) -> Trouble:
    """Describe an error; see ``Trouble``."""
    return Trouble(item, slug_of(error), error.detail)


def defect() -> Trouble:
    """Describe an error that nobody thought of."""
    return Trouble(None, INTERNAL[0], "this is a defect of the service; report it with what its log says.")
