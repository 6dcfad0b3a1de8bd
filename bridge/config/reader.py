"""What reading one table of the file takes along: where it stands, and what is known around it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.config.problems import Location, Report, Takers
from bridge.config.secrets import Secrets
from bridge.errors import UnknownProvider
from bridge.providers import Provider, lookup
from bridge.settings.kinds import refusal


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the table at `path`; what is wrong goes into the report."""

    report: Report
    path: tuple[str, ...]
    secrets: Secrets
    providers: Mapping[str, Provider]
    """All that there are: built in, changed, added."""

    def below(self, *names: str) -> "Reader":
        return replace(self, path=(*self.path, *names))

    def place(self, *names: str) -> Location:
        return self.report.place(*self.path, *names)

    def problem(self, message: str, *names: str) -> None:
        self.report.add(self.place(*names), message)

    def table(self, value: object) -> Mapping[str, object]:
        return self.report.table(value, self.place())

    def tables(self, value: object) -> list[tuple["Reader", Mapping[str, object]]]:
        """Each table of a list, with its reader."""
        if not isinstance(value, list):
            self.problem(str(refusal(value, "a list of tables")))
            return []
        elements = ((self.below(str(index)), each) for index, each in enumerate(value))
        return [(below, table) for below, each in elements if (table := below.table(each)) is each]

    def take(self, value: object, takers: Takers) -> dict[str, Any]:
        """What could be taken of a table; the rest is reported."""
        return self.report.take(self.table(value), takers, self.place)

    def slug(self, value: object) -> str:
        """The provider's own slug, of it or of its alias. Raises ValueError."""
        if not isinstance(value, str):
            raise refusal(value, "a provider's slug")
        try:
            return lookup(value, self.providers).slug
        except UnknownProvider as error:
            raise ValueError(str(error)) from None

    def slugs(self, value: object) -> frozenset[str]:
        """Raises ValueError."""
        if not isinstance(value, list) or not value:
            raise refusal(value, 'a list of providers such as ["openai"]')
        return frozenset(map(self.slug, value))
