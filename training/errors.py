"""What can go wrong in training, in sentences that name the fix."""


class TrainingError(Exception):
    """A configuration, file or device that training cannot use; the message says what to do."""
