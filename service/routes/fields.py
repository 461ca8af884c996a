"""Forms take the fields that they name, and no others: a mistyped hint must not be taken for none."""

from typing import Any

from fastapi import Depends, Request

from service.errors import InvalidParameter


def only_fields(*names: str) -> Any:
    """A dependency that refuses a form with other fields than ``names``.

    Raises:
        InvalidParameter: when a request is served; names the field and those that there are.
    """

    async def check(request: Request) -> None:
        for name in await request.form():  # it has been read; this is what the framework keeps of it
            if name not in names:
                raise InvalidParameter(f"the form has a field {name!r:.50}; it takes {', '.join(names)}.")

    return Depends(check)
