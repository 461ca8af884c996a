from service.errors import EmbeddingError
from service.ground.store.imports import Trouble
from service.importing.troubles import defect, trouble_of


def test_what_is_stored_are_names_that_answers_have_and_none_of_classes():
    assert trouble_of(EmbeddingError("no number"), "window 1") == Trouble("window 1", "embedding-failed", "no number")
    assert (defect().item, defect().kind) == (None, "internal-error")
