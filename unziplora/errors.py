"""What goes wrong, in two sentences: what is wrong, what to do (traces go to the run's log)."""


class UnZipLoRAError(Exception):
    """Something a user can act on; its message is shown as it is, but for characters that are not
    printable: a file's name may hold some that move the cursor or turn the text around."""

    def __str__(self) -> str:
        return "".join(
            c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode()
            for c in super().__str__()
        )


class InvalidInput(UnZipLoRAError):
    """Refused before anything was written: a file, a word or a number that cannot be used."""


class NotFound(InvalidInput):
    """An id or a name that is of nothing: over HTTP, 404."""


class WriteError(UnZipLoRAError):
    """A disk is full, or a folder or file refuses; what lay there before is as it was."""


class Interrupted(UnZipLoRAError):
    """A user interrupted what a host was drawing; the host sends what follows from it."""


class TrainingFailed(UnZipLoRAError):
    """A run ended early; its state up to the last good step is in its folder."""


class ModelDamaged(UnZipLoRAError):
    """The model in memory could not be put back as it was; nothing may be drawn with it."""
