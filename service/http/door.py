"""The door: how many requests may be here at a time, those that are still arriving apart from those inside."""

import time
from enum import StrEnum

from service.errors import NotReady, Overloaded

RETRY_AFTER_S = 1  # one batch or two: what is inside now will mostly be out
TOO_LATE = 504
LOWERED = 0.7  # CUBIC's factor (RFC 9438, section 4.6): a wave of late answers ends in two or three steps


class Stage(StrEnum):
    """How far a request has come."""

    ARRIVING = "arriving"
    """Its body is on the way: costs a connection and what has come of the body, but no work."""
    INSIDE = "inside"
    """It is worked on."""
    UPLOADING = "uploading"
    """It brings a large file, which goes to the disk as it comes; it stays here until it is answered."""
    ANSWERING = "answering"
    """Its answer is on the way: costs a connection and what is left to send, but no work. Who does not take it is cut
    off, see ``connection``."""


class Door:
    """Counts the requests here and lets no more in than can be answered in time, or none at all when it is closed.

    How many may be inside depends on the machine, the model and the photos, so it is learnt: a request that missed its
    deadline lowers the limit by a factor, one that was answered while the house was full raises it by a little. This
    is how TCP shares a link (additive increase, multiplicative decrease: Chiu and Jain 1989), and it keeps an
    overloaded service from working on requests that it will not finish in time.

    Args:
        most: requests inside at a time, at the most.
        most_arriving: requests whose body is on the way.
        most_uploads: large files that come at a time.
        most_body_bytes: bytes of all bodies together that have come and are not answered, large files apart.
    """

    def __init__(self, most: int, most_arriving: int, most_uploads: int, most_body_bytes: int) -> None:
        self.most, self.most_arriving, self.most_uploads = most, most_arriving, most_uploads
        self.most_body_bytes = most_body_bytes
        self.limit = float(most)
        self.here = dict.fromkeys(Stage, 0)
        self.body_bytes = 0
        self.closed = False
        self._lowered_at = float("-inf")

    @property
    def empty(self) -> bool:
        """Whether nobody is here."""
        return not any(self.here.values())

    def admit(self, stage: Stage) -> "Visit":
        """Let a request in.

        Raises:
            NotReady: the door is closed.
            Overloaded: there is no room for it.
        """
        if self.closed:
            raise NotReady("the service is shutting down; ask again in a moment, another will take its place.")
        if stage is Stage.UPLOADING:
            self._check(stage, self.most_uploads, "files are being uploaded already")
        else:
            self.check_inside()
        if stage is Stage.ARRIVING:
            self._check(stage, self.most_arriving, "requests are arriving already")
        return Visit(self, stage)

    def check_inside(self) -> None:
        """Raise Overloaded when no more can be worked on."""
        self._check(Stage.INSIDE, int(self.limit), "requests are being served already")

    def _check(self, stage: Stage, limit: int, full: str) -> None:
        if (here := self.here[stage]) >= limit:
            raise _overloaded(f"{here} {full}", limit)

    def learn(self, status: int, entered_at: float) -> None:
        """Adjust the limit to what became of a request that entered at ``entered_at``, a monotonic time in seconds."""
        if status == TOO_LATE and entered_at > self._lowered_at:  # those inside at the last lowering prove nothing new
            self.limit = max(1.0, self.limit * LOWERED)
            self._lowered_at = time.monotonic()
        elif 200 <= status < 300 and self.here[Stage.INSIDE] >= self.limit / 2:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)


class Visit:
    """One request from its headers to the end of its answer; made by ``Door.admit``.

    Attributes:
        stage: how far it is.
        late: whether something missed its deadline though the answer as a whole did not, as one of several photos may.
    """

    def __init__(self, door: Door, stage: Stage) -> None:
        self.stage = stage
        self.late = False
        self._door = door
        self._bytes = 0
        self._entered_at = time.monotonic()
        door.here[stage] += 1

    def bring(self, size: int) -> None:
        """Note ``size`` more bytes of the body, which are kept until the request is answered.

        Raises:
            Overloaded: all bodies together have grown too large.
        """
        if self.stage is Stage.UPLOADING:
            return
        self._bytes += size
        self._door.body_bytes += size
        if self._door.body_bytes > self._door.most_body_bytes:
            limit = self._door.most_body_bytes
            raise _overloaded(f"the requests that are here have more than {limit} bytes", limit)

    def enter(self) -> None:
        """Note that the body is here, and work on it begins.

        Raises:
            Overloaded: the house has filled meanwhile.
        """
        if self.stage is Stage.ARRIVING:
            self._door.check_inside()
            self._move(Stage.INSIDE)
            self._entered_at = time.monotonic()

    def answer(self, status: int) -> None:
        """Note that the work is done; what is left is to send the answer, whose status is ``status``."""
        if self.stage is Stage.INSIDE:
            self._door.learn(TOO_LATE if self.late else status, self._entered_at)
        self._move(Stage.ANSWERING)

    def leave(self) -> None:
        """Note that the answer is sent, or nobody waits for it any more."""
        self._door.here[self.stage] -= 1
        self._door.body_bytes -= self._bytes

    def _move(self, stage: Stage) -> None:
        self._door.here[self.stage] -= 1
        self.stage = stage
        self._door.here[stage] += 1


def _overloaded(full: str, limit: int) -> Overloaded:
    return Overloaded(f"{full}; ask again in a second.", limit=limit, retry_after_s=RETRY_AFTER_S)
