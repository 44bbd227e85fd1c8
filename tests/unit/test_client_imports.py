"""What a script imports, read from its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimbus_hub.client.imports import imports_of, with_imports
from nimbus_hub.client.requests import JobRequest


def written(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import torch.nn as nn, os\nimport xgboost", ("torch", "xgboost")),
        ("from torch.utils import data", ("torch",)),
        ("def train():\n    import lightgbm\n", ("lightgbm",)),
        (
            "try:\n    import a\nexcept ImportError:\n    import b\nelse:\n    import c",
            ("a", "c", "b"),
        ),
        ("match 1:\n    case 1:\n        import gensim", ("gensim",)),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", ()),
        ("import typing\nif typing.TYPE_CHECKING:\n    import torch\nelse:\n    import b", ("b",)),
        ("text = 'import torch'\n# import torch", ()),
        ("import torch\nthis is no Python", ()),
        ("import \x00", ()),
        ("(" * 5000, ()),
        ("x = '\\d'\nimport torch", ("torch",)),
        ("", ()),
    ],
)
def test_a_script_imports(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    written(tmp_path, {"train.py": text})
    assert imports_of(("python", "-u", "train.py"), tmp_path) == names


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (("python", "train.py", "other.py"), ("torch",)),
        (("python3.11", "-X", "utf8", "sub/train.py"), ("xgboost",)),
        (("python", "-m", "sub.run", "-m", "train"), ("gensim", "lightgbm")),
        (("python", "-m", "sub"), ("gensim", "mpi4py")),
        (("python", "-c", "import torch", "train.py"), ()),
        (("python",), ()),
        (("python", "-m"), ()),
        (("python", "no.py"), ()),
        (("python", "../train.py"), ()),
        (("bash", "train.py"), ()),
        (("./train.py",), ()),
    ],
)
def test_the_script_is_found_in_the_command(
    tmp_path: Path, argv: tuple[str, ...], names: tuple[str, ...]
) -> None:
    written(
        tmp_path,
        {
            "train.py": "import torch",
            "sub/__init__.py": "import gensim",
            "sub/__main__.py": "import mpi4py",
            "sub/run.py": "import lightgbm",
            "sub/train.py": "import xgboost",
        },
    )
    assert imports_of(argv, tmp_path) == names


def test_modules_of_the_working_directory_are_read_and_not_named(tmp_path: Path) -> None:
    files = {
        "train.py": "import helper, pkg.deep\nfrom pkg import names\nimport lonely",
        "helper.py": "import train\nimport numpy",
        "pkg/__init__.py": "from . import shared\nfrom .. import helper",
        "pkg/shared.py": "import torch",
        "pkg/deep.py": "from .inner.last import x",
        "pkg/names.py": "import pandas",
        "pkg/inner/last.py": "from ..other import y\nimport sklearn",
        "pkg/other.py": "import scipy",
    }
    found = imports_of(("python", "train.py"), written(tmp_path, files))
    assert set(found) == {"numpy", "torch", "pandas", "sklearn", "scipy", "lonely"}


def test_a_module_of_ones_own_hides_a_framework_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, {"train.py": "import xgboost", "xgboost.py": "x = 1"})
    assert imports_of(("python", "train.py"), tmp_path) == ()


def test_it_is_bounded(tmp_path: Path) -> None:
    chain = {f"m{n}.py": f"import m{n + 1}, own{n}" for n in range(300)}
    chain |= {"large.py": "import torch\n#" + "x" * 2**20, "train.py": "import m0, large"}
    found = imports_of(("python", "train.py"), written(tmp_path, chain))
    assert "own100" in found
    assert not {"own250", "torch"} & set(found)


def test_a_cell_is_read_as_it_is(tmp_path: Path) -> None:
    written(tmp_path, {"helper.py": "import torch"})
    texts = {"cell-1.py": "import helper\nimport numpy"}
    assert imports_of(("python", "-u", "cell-1.py"), tmp_path, texts) == ("numpy", "torch")


@pytest.mark.parametrize("said", [{"framework": "script"}, {"gang": "l-1"}])
def test_where_the_framework_is_known_nothing_is_read(tmp_path: Path, said: dict[str, str]) -> None:
    written(tmp_path, {"train.py": "import torch"})
    request = JobRequest(("python", "train.py"), **said)  # type: ignore[arg-type]
    assert with_imports(request, tmp_path) is request
    open_one = JobRequest(("python", "train.py"))
    assert with_imports(open_one, tmp_path).imports == ("torch",)
