"""Is this folder the data set it should be? Errors show the expected tree and the first thing that is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError

#: File names that begin with a dot or end otherwise (Thumbs.db, notes) are no images of a data set.
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}


@dataclass(frozen=True)
class Layout:
    """The folder of a data set.

    Attributes:
        name: of the data set.
        root: its folder.
        tree: the expected content, drawn in a few lines.
    """

    name: str
    root: Path
    tree: str

    def wrong(self, problem: str) -> TrainingError:
        """Return the error that says what is wrong with the folder, and how it should look."""
        return TrainingError(
            f"{self.root} is not a {self.name} folder: {problem}\n"
            f"data.root should be the folder that holds\n{self.tree.strip(chr(10))}"
        )

    def folder(self, path: str) -> Path:
        """Return a sub-folder.

        Raises:
            TrainingError: it is missing.
        """
        found = self.root / path
        if not found.is_dir():
            raise self.wrong(f"there is no folder {path}/.")
        return found

    def text(self, path: str) -> str:
        """Read a text file.

        Raises:
            TrainingError: it is missing or no text.
        """
        try:
            return (self.root / path).read_text(encoding="utf-8")
        except OSError as error:
            raise self.wrong(f"cannot read {path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise self.wrong(f"{path} is no text file.") from error

    def lines(self, path: str) -> list[str]:
        """Read the lines of a text file, without empty ones.

        Raises:
            TrainingError: it is missing or no text.
        """
        return [line.strip() for line in self.text(path).splitlines() if line.strip()]

    def images(self, path: str) -> list[Path]:
        """List all images directly in a sub-folder, by name.

        Raises:
            TrainingError: the folder is missing or has no image.
        """
        with os.scandir(self.folder(path)) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith("."))
        found = [self.root / path / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise self.wrong(f"{path}/ has no images.")
        return found

    def places(self, path: str) -> list[str]:
        """List the names of a folder's sub-folders, one for each place, in order.

        Raises:
            TrainingError: the folder is missing or has no sub-folder.
        """
        with os.scandir(self.folder(path)) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
        if not names:
            raise self.wrong(f"{path}/ has no folders, one for each place.")
        return names

    def by_place(self, path: str) -> dict[str, list[Path]]:
        """List the images of each place's folder, by the folder's name.

        Raises:
            TrainingError: the folder is missing or empty, or a place has no image.
        """
        return {place: self.images(f"{path}/{place}") for place in self.places(path)}
