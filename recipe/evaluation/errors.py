"""The errors that the command line shows as a sentence."""


class EvaluationError(ValueError):
    """Something the user gave cannot be used; the message names key, value and fix."""


class Unanswered(EvaluationError):
    """Some responses could not be had; the others are saved and the same command goes on."""
