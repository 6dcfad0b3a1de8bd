"""`python -m bridge.docs`: write the generated tables into the pages of a checkout."""

from pathlib import Path

from bridge.docs.tables import fill


def main() -> None:
    """Write every page of this folder whose tables are not those of the code."""
    for path in sorted(Path(__file__).parent.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = fill(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path.name)  # noqa: T201 - a tool for developers, whose output this is


if __name__ == "__main__":
    main()
