"""Secrets of a configuration, which contains only references to them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.settings.kinds import refusal

MAX_SECRET_FILE_BYTES: Final = 65_536
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secrets:
    """Read the secrets named by `env:NAME` and `file:PATH`; PATH is relative to `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.files: list[Path] = []
        """All requested files, also unreadable ones: their content is part of the configuration."""

    def read(self, value: object, description: str = "a secret") -> str:
        """Return a secret without surrounding white space; it is never empty.

        Raises ValueError, whose message never contains a value that may be the secret itself.
        """
        kind, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
        if kind == "env" and _VARIABLE.fullmatch(name):
            secret = self._from_environment(name)
        elif kind == "file" and name:
            secret = self._from_file(self._folder / Path(name).expanduser())
        else:
            raise ValueError(f'{description} must be given as "env:NAME" or "file:PATH", never as plain text')
        if not secret:
            raise ValueError(f"{kind}:{name} is empty")
        return secret

    def text(self, value: object) -> str:
        """Return a plain text, or the secret that it refers to. Raises ValueError."""
        if not isinstance(value, str) or not value:
            raise refusal(value, "a non-empty string")
        return self.read(value) if value.startswith(("env:", "file:")) else value

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
            raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8") from None
        return _bare(text)


def _bare(secret: str) -> str:
    """Remove surrounding white space, and the byte order mark that editors on Windows add."""
    return secret.removeprefix("\ufeff").strip()
