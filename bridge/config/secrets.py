"""Secrets, which a configuration never holds itself: it says where they are."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.settings.kinds import refusal

MAX_SECRET_FILE_BYTES: Final = 65_536
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secrets:
    """Reads what `env:NAME` and `file:PATH` stand for; PATH is relative to `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.files: list[Path] = []
        """Those that were asked for, whether or not they could be read: what they hold is a part of what is meant."""

    def read(self, given: object, what: str = "a secret") -> str:
        """Without white space around it, and never empty. Raises ValueError, whose message never holds `given` where
        that may be the secret itself.
        """
        form, _, rest = given.partition(":") if isinstance(given, str) else ("", "", "")
        if form == "env" and _VARIABLE.fullmatch(rest):
            secret = self._from_environment(rest)
        elif form == "file" and rest:
            secret = self._from_file(self._folder / Path(rest).expanduser())
        else:
            raise ValueError(f'{what} is given as "env:NAME" or "file:PATH", never as plain text')
        if not secret:
            raise ValueError(f"{form}:{rest} is empty")
        return secret

    def text(self, given: object) -> str:
        """What is no secret may stand there itself, or be given as one. Raises ValueError."""
        if not isinstance(given, str) or not given:
            raise refusal(given, "a text that is not empty")
        return self.read(given) if given.startswith(("env:", "file:")) else given

    def _from_environment(self, variable: str) -> str:
        if variable not in self._environ:
            raise ValueError(f"the environment variable {variable} is not set")
        return _bare(self._environ[variable])

    def _from_file(self, path: Path) -> str:
        self.files.append(path)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_SECRET_FILE_BYTES).decode()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} does not hold a secret: it is not UTF-8 text; save it as UTF-8") from None
        return _bare(text)


def _bare(secret: str) -> str:
    """Without white space around it, and without the byte order mark that editors on Windows put before a text."""
    return secret.removeprefix("\ufeff").strip()
