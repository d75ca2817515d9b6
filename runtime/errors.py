"""Errors of the runtime. Every message says what is wrong and how to mend it."""


class OiError(Exception):
    """Base of every error that a user can cause and mend."""


class ArtifactError(OiError):
    """The artifact is missing, damaged, of another format, or does not fit this machine or checkpoint."""


class CheckpointError(OiError):
    """The checkpoint folder or one of its files is missing, damaged, or not what the artifact expects."""


class DeviceError(OiError):
    """The device cannot run the artifact, or a kernel reported a failure."""


class RequestError(OiError):
    """A request cannot be served as asked. `param` names the field at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Overloaded(OiError):
    """The waiting queue is full; the request may be sent again later."""


class EngineDead(OiError):
    """The engine process ended or stopped making progress."""
