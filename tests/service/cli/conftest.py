"""Commands run in a folder of their own, and find no settings of whoever runs the tests."""

import pytest


@pytest.fixture
def own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("AEROFIX_URL", "AEROFIX_GALLERY", "AEROFIX_MODEL", "AEROFIX_DEVICE", "AEROFIX_KEY"):
        monkeypatch.delenv(name, raising=False)
