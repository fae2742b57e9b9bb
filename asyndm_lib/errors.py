"""Errors whose text is meant for the person who makes the picture."""


class AsynDMError(Exception):
    """The base class. ``str(error)`` is one line that says what is wrong and what to do."""


class SettingsError(AsynDMError):
    """A setting has an unknown name, a wrong type or a value out of range."""


class TargetError(AsynDMError):
    """The list of target words cannot be read, or a word is not in the prompt."""


class Unsupported(AsynDMError):
    """The host's present set-up (its sampler, model or the like) cannot run on a sigma map."""


class Unmatched(Unsupported):
    """Somebody calls the model in a way that leaves its pixels without their noise levels."""
