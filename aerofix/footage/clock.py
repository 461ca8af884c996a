"""When the frames of a live stream were taken: by the stream's own times, told in the time of this machine."""

SETTLING_S = 1.0
"""The clock is believed after so many seconds: a stream begins with the frames that FFmpeg held back while it found out
what comes, and these come late, by 0.8 s in our trial."""

JUMP_S = 1.0
"""A frame that is so many seconds later than expected starts the clock anew: the stream was paused, or counts anew."""

CREEP = 1e-3
"""The delay is taken to grow by this much of the time, so that the clock follows a sender whose own clock is slow; the
crystals of cameras are off by a tenth of this at most."""


class StreamClock:
    """Tells when frames were taken.

    A frame never comes earlier than the line carries it, and often later, held back by buffers and busy cores. So the
    smallest delay that was seen is the line's, and the same for all frames (the clock filter of the Network Time
    Protocol, RFC 5905, section 10, takes the sample of the smallest delay likewise).
    """

    def __init__(self) -> None:
        self._delay_s: float | None = None
        self._seen_s = self._began_s = 0.0

    def taken_s(self, stream_s: float, now_s: float) -> float | None:
        """Tell when a frame was taken, not counting the line's own delay.

        Args:
            stream_s: the frame's time in the stream; it may count from anything.
            now_s: when it came, in seconds of this machine's clock.

        Returns:
            Seconds of this machine's clock, ``now_s`` at the latest; None while the clock still settles.
        """
        delay_s = now_s - stream_s
        if self._delay_s is None:
            self._began_s = now_s
        else:
            self._delay_s += CREEP * (now_s - self._seen_s)
        if self._delay_s is None or delay_s < self._delay_s or delay_s > self._delay_s + JUMP_S:
            self._delay_s = delay_s
        self._seen_s = now_s
        return stream_s + self._delay_s if now_s - self._began_s >= SETTLING_S else None
