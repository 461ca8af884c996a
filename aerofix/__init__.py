"""aerofix for Python: ask a running service, or work on a gallery file in this process.

```python
from aerofix import Client, Localizer

with Client("http://127.0.0.1:8000") as client:
    answer = client.localize("photo.jpg", heading_deg=118)
    print(answer.status, answer.position)
with Localizer("area.gallery") as localizer:
    print(localizer.localize("photo.jpg").position)
```

All answers are pydantic models (``aerofix.models``), and whatever goes wrong is an ``AerofixError`` whose ``detail``
names the fix.
"""

from aerofix.async_client import AsyncClient
from aerofix.client import Client, Localizer
from aerofix.options import ImportOptions, Photo, PhotoOptions, TrackOptions
from aerofix.transport import FileUnreadable, ServiceError
from service import __version__
from service.errors import AerofixError

__all__ = [
    "AerofixError",
    "AsyncClient",
    "Client",
    "FileUnreadable",
    "ImportOptions",
    "Localizer",
    "Photo",
    "PhotoOptions",
    "ServiceError",
    "TrackOptions",
    "__version__",
]
