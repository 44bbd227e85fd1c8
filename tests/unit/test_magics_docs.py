"""The documentation says what the magics do."""

from __future__ import annotations

import json
from pathlib import Path

from nimbus_hub.magics.cell import script_of_cell

DOCS = Path(__file__).parents[2] / "docs"


def test_the_notebook_trains_with_the_script_of_the_examples() -> None:
    notebook = json.loads((DOCS / "examples" / "first_run.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    line, _, body = cells[0].partition("\n")
    assert line == "%%nimbus_run --as job --name digits --framework pytorch --workers 2"
    assert f"{body}\n" == (DOCS / "examples" / "digits.py").read_text()
    assert script_of_cell(body).name.startswith("cell-")


def test_the_notebook_is_saved_without_output() -> None:
    notebook = json.loads((DOCS / "examples" / "first_run.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * len(code)
