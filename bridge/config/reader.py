"""Reader of one table of the configuration file, with its path and the known providers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.config.problems import Converters, Location, Report
from bridge.config.secrets import Secrets
from bridge.errors import UnknownProvider
from bridge.providers import Provider, lookup
from bridge.settings.kinds import refusal


@dataclass(frozen=True, slots=True)
class Reader:
    """Read the table at `path`; problems go into the report."""

    report: Report
    path: tuple[str, ...]
    secrets: Secrets
    providers: Mapping[str, Provider]
    """All providers: built in, changed, added."""

    def below(self, *names: str) -> "Reader":
        return replace(self, path=(*self.path, *names))

    def location(self, *names: str) -> Location:
        return self.report.location(*self.path, *names)

    def problem(self, message: str, *names: str) -> None:
        self.report.add(self.location(*names), message)

    def table(self, value: object) -> Mapping[str, object]:
        return self.report.table(value, self.location())

    def tables(self, value: object) -> list[tuple["Reader", Mapping[str, object]]]:
        """Return the tables of a list, each with its reader."""
        if not isinstance(value, list):
            self.problem(str(refusal(value, "a list of tables")))
            return []
        elements = ((self.below(str(index)), element) for index, element in enumerate(value))
        return [(below, table) for below, element in elements if (table := below.table(element)) is element]

    def take(self, value: object, converters: Converters) -> dict[str, Any]:
        """Return the values of a table that could be converted; the others are reported."""
        return self.report.take(self.table(value), converters, self.location)

    def slug(self, value: object) -> str:
        """Return the slug of a provider, given its slug or alias. Raises ValueError."""
        if not isinstance(value, str):
            raise refusal(value, "a provider's slug")
        try:
            return lookup(value, self.providers).slug
        except UnknownProvider as error:
            raise ValueError(str(error)) from None

    def slugs(self, value: object) -> frozenset[str]:
        """Return the slugs of a list. Raises ValueError."""
        if not isinstance(value, list) or not value:
            raise refusal(value, 'a list of providers such as ["openai"]')
        return frozenset(map(self.slug, value))
