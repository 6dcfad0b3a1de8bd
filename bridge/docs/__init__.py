"""The reference manual: Markdown pages in this package, printed by `bridge help`.

`pages` finds and reads them. `tables` renders the tables that come from the code; `python -m bridge.docs` writes these
into the pages. A page begins with its title (`# …`), an empty line, and one sentence that says what it describes.
"""
