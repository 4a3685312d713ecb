"""The one error that the command line shows as a sentence."""


class EvaluationError(ValueError):
    """Something the user gave cannot be used; the message names key, value and fix."""
