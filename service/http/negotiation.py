"""Which of several media types a client would rather have."""

from collections.abc import Sequence


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Choose by an ``Accept`` header (RFC 9110, section 12.5.1).

    Args:
        accept: the header's value.
        offered: media types, the default first; it wins ties and is the answer to a header that accepts none, which
            the RFC allows and which is more use than a 406.
    """
    ranges = dict(_parse(part) for part in accept.split(",") if part.strip())

    def quality(media_type: str) -> float:
        wider = (media_type, media_type.split("/")[0] + "/*", "*/*")
        return next((ranges[name] for name in wider if name in ranges), 0.0)

    return max(offered, key=quality)


def _parse(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip() for piece in part.lower().split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0
