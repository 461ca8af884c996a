"""What ``aerofix doctor`` looks at."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from service.errors import AerofixError, GalleryInUse
from service.http.security import Keys, for_listening
from service.settings import Settings

# Distributions that install the same module: one of each group must be there, and two overwrite each other's files.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
INDEXES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is good, and what was seen or what to do."""

    subject: str
    good: bool
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that an answer needs; what depends on a missing package is left out."""
    findings = [one_of("onnxruntime", RUNTIMES), one_of("faiss", INDEXES)]
    if all(finding.good for finding in findings):
        findings += [_try("providers", _providers), *_model_and_gallery(settings)]
        findings.append(_try("search", lambda: _search(settings)))
    return [*findings, _try("listening", lambda: _listening(settings))]


def one_of(module: str, distributions: tuple[str, ...]) -> Finding:
    """Exactly one of the distributions that provide a module must be installed."""
    found = {name: installed for name in distributions if (installed := _version(name)) is not None}
    if len(found) == 1:
        return Finding(module, True, " ".join(*found.items()))
    if not found:
        return Finding(module, False, f"not installed; `pip install aerofix[cpu]` brings {distributions[0]}")
    extra = "gpu" if any("gpu" in name for name in found) else "cpu"
    names = " ".join(found)
    return Finding(
        module,
        False,
        f"{' and '.join(found)} are both installed and overwrite each other; "
        f"`pip uninstall {names}`, then `pip install aerofix[{extra}]`",
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _try(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, look())
    except AerofixError as error:
        return Finding(subject, False, error.detail)
    except ImportError as error:
        return Finding(subject, False, f"{error}; install the package again")


def _providers() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _search(settings: Settings) -> str:
    from service.ground.index.gpu import REBUILD_AT, make_index

    index = make_index(1, settings.search_device).describe()
    if "gpu" not in index:
        return f"runs on {index['device']}"
    return f"runs on {index['gpu']} once it has a copy of more than {REBUILD_AT} tiles; areas, and fewer, on the cpu"


def _listening(settings: Settings) -> str:
    for_listening(settings)
    keys = Keys.of(settings)
    who = f"{len(keys.read)} read and {len(keys.write)} write keys" if keys.needed else "no keys"
    return f"on {settings.host}:{settings.port} with {who}"


def _model_and_gallery(settings: Settings) -> list[Finding]:
    from service.encoder.session import Encoder
    from service.ground.gallery import Gallery
    from service.ground.index.collection import Collection

    encoder: Encoder | None = None

    def model() -> str:
        nonlocal encoder
        encoder = Encoder.of(settings)  # checks the contract, embeds a probe
        contract = encoder.contract
        return f"{contract.model_id} keeps the contract and embeds a probe image on {encoder.provider}"

    def gallery() -> str:
        if not settings.gallery.exists():
            return f"none at {settings.gallery} yet; `aerofix gallery add SOURCE` makes it"
        if encoder is None:
            return f"{settings.gallery} was not opened, there is no model to compare it with"
        identity, dim = encoder.contract.identity, encoder.contract.embedding_dim
        try:
            collection = Collection.shared(settings, identity, dim)
            with Gallery.open(settings.gallery, identity, dim, read_only=True, collection=collection) as opened:
                held = "" if collection is None else f", and so does Milvus in its collection {collection.name}"
                return f"{settings.gallery} holds {opened.count()} windows and pictures of this model{held}"
        except GalleryInUse:
            return f"{settings.gallery} is in use, by a running service perhaps: `aerofix gallery info` asks it"

    return [_try("model", model), _try("gallery", gallery)]
