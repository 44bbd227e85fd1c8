"""A cell becomes a script, or is refused with the line that cannot be one."""

from __future__ import annotations

import pytest

from nimbus_hub.errors import InvalidRequest
from nimbus_hub.magics.cell import script_of_cell


def test_lines_of_the_script_are_lines_of_the_cell() -> None:
    script = script_of_cell("import os\nprint(os.getpid())\n\n")
    assert script.text == "# %%nimbus_run\nimport os\nprint(os.getpid())\n"


def test_the_name_follows_from_the_text_and_cannot_be_imported() -> None:
    one, again, other = (script_of_cell(text).name for text in ("a = 1", "a = 1\n", "a = 2"))
    assert one == again != other
    assert one.startswith("cell-")
    assert one.endswith(".py")
    assert not one.removesuffix(".py").isidentifier()


def test_a_future_import_and_text_that_looks_like_magic_are_plain_python() -> None:
    body = 'from __future__ import annotations\ntext = """\n%matplotlib\n!ls\n"""\nx = 7 % 3\n'
    assert script_of_cell(body).text.endswith(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the cell is empty: write the script below %%nimbus_run"),
        (" \n\n", "the cell is empty: write the script below %%nimbus_run"),
        (
            "import os\n!pip install torch",
            "line 3 of the cell is IPython syntax (!pip install torch), which a script cannot "
            "run: move it to a cell of its own",
        ),
        (
            "for i in range(3):\n    %time i",
            "line 3 of the cell is IPython syntax (%time i), which a script cannot run: "
            "move it to a cell of its own",
        ),
        (
            "files = !ls",
            "line 2 of the cell is IPython syntax (files = !ls), which a script cannot run: "
            "move it to a cell of its own",
        ),
        (
            "print?",
            "line 2 of the cell is IPython syntax (print?), which a script cannot run: "
            "move it to a cell of its own",
        ),
        (
            "a = 1\nb = = 2",
            "line 3 of the cell is no valid Python script: invalid syntax (b = = 2)",
        ),
        (
            "await train()",
            "line 2 of the cell is no valid Python script: 'await' outside function "
            "(await train())",
        ),
    ],
)
def test_what_is_no_script_is_refused_with_its_line(body: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        script_of_cell(body)
    assert caught.value.message == message
