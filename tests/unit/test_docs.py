"""The documentation: generated pages are fresh, links lead somewhere, commands exist."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from nimbus_hub.api.identity import Scope
from nimbus_hub.cli.hub import cli as nimbus_hub
from nimbus_hub.cli.main import nimbus
from nimbus_hub.cli.run import run
from nimbus_hub.cli.tensorboard import tensorboard
from nimbus_hub.client.run_options import parse_run
from nimbus_hub.control.cluster import KEYS, read_cluster
from nimbus_hub.magics.cell import script_of_cell
from nimbus_hub.model.cluster import Cluster

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
COMMANDS: dict[str, click.Command] = {
    "nimbus": nimbus,
    "nimbus-hub": nimbus_hub,
    "nimbus-run": run,
    "nimbus-tensorboard": tensorboard,
}


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nimbus_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in one of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as they are linked."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


def command_lines(page: Path) -> Iterator[str]:
    """Yield lines of shell that a page shows, in its blocks and within its text."""
    for block in blocks(page, "", "sh", "bash", "console"):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", prose(page))


def words_of(line: str) -> list[str]:
    """Return a command line's words, without comment, prompt, assignments and brackets."""
    line = re.sub(r"\s#.*$|^\$ |^\w+=\$\(", "", line.strip())
    try:
        words = shlex.split(re.sub(r"[\[\]),]|\.\.\.", " ", line))
    except ValueError:
        return []
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    return words


def wrong_words(command: click.Command, words: list[str]) -> Iterator[str]:
    """Yield the subcommands and options that a command does not have."""
    context = click.Context(command)
    if isinstance(command, click.Group):
        group_options = [word for word in words[:1] if word.startswith("-")]
        name = next((word for word in words if not word.startswith("-")), None)
        if name is None or group_options:
            return
        found = command.get_command(context, name)
        if found is None:
            yield name
        else:
            yield from wrong_words(found, words[words.index(name) + 1 :])
        return
    params = command.get_params(context)
    options = [param for param in params if isinstance(param, click.Option)]
    known = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    flags = {name for option in options if option.is_flag for name in option.opts}
    if command.context_settings.get("ignore_unknown_options"):
        return  # Its words go on to another program.
    has_rest = not command.allow_interspersed_args
    takes_value = False
    for word in words:
        if word in ("--", "|", ">", "&&") or (
            has_rest and not takes_value and not word.startswith("-")
        ):
            return
        if word.startswith("-") and not takes_value:
            option = word.partition("=")[0]
            if option not in known:
                yield option
            takes_value = option in known - flags and "=" not in word
        else:
            takes_value = False


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


@pytest.mark.parametrize("file", GENERATOR.pages())
def test_a_generated_page_is_as_the_source_says(file: str) -> None:
    made = GENERATOR.pages()[file]
    assert (DOCS / file).read_text() == made, "run: python docs/generate.py"


def test_every_scope_is_documented() -> None:
    assert set(GENERATOR.SCOPES) == set(Scope)


def test_every_key_of_the_cluster_file_is_documented() -> None:
    documented = {part: sorted(keys) for part, keys in GENERATOR.CLUSTER_KEYS.items()}
    assert documented == {part: sorted(keys) for part, keys in KEYS.items()}


def test_pieces_of_a_cluster_file_that_are_shown_are_right(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    pieces = [text for page in PAGES for text in blocks(page, "yaml")]
    for text in pieces:
        file.write_text(text)
        assert read_cluster(file) != Cluster()
    assert len(pieces) > 6


def test_the_example_of_a_cluster_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(GENERATOR.CLUSTER_EXAMPLE)
    gpu, cpu = read_cluster(file).hosts
    assert [(gpu.name, len(gpu.gpus)), (cpu.name, len(cpu.gpus))] == [("gpu-1", 4), ("cpu-1", 0)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_exist(page: Path) -> None:
    wrong = []
    for line in command_lines(page):
        program, *words = words_of(line) or [""]
        if program in COMMANDS:
            wrong += [f"{line}: {word}" for word in wrong_words(COMMANDS[program], words)]
        elif program == "make":
            asked = {word for word in words if "=" not in word and not word.startswith("-")}
            wrong += [f"{line}: {word}" for word in asked - make_targets()]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_that_is_shown_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        first, _, rest = block.partition("\n")
        if first.startswith("%%"):
            script_of_cell(rest)
            continue
        lines = [line for line in block.splitlines() if not line.startswith("%")]
        ast.parse("\n".join(lines))


def test_the_readme_shows_a_cell_of_ten_lines_or_so_that_is_a_job() -> None:
    cells = [text for text in blocks(ROOT / "README.md", "python") if text.startswith("%%")]
    line, _, body = cells[0].partition("\n")
    name, *words = shlex.split(line)
    options = parse_run(words, name)
    assert (name, options.framework, options.workers) == ("%%nimbus_run", "pytorch", 2)
    assert 8 <= len(body.splitlines()) <= 14
    assert script_of_cell(body).name.startswith("cell-")


def test_architecture_fits_in_the_head() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 150


def test_the_changelog_has_the_version() -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "nimbus_hub/__init__.py").read_text())
    assert version is not None
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_extras_that_are_named_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {
        extra
        for page in PAGES
        for extras in re.findall(r"nimbus-hub\[([\w,]+)\]", page.read_text())
        for extra in extras.split(",")
    }
    assert asked <= set(project["optional-dependencies"])


def test_settings_that_are_named_exist() -> None:
    classes = {cls.__name__: cls for cls in GENERATOR.SETTINGS}
    named = {
        (page.name, name, trait)
        for page in [*PAGES, ROOT / "jupyterhub_config.py"]
        for name, trait in re.findall(r"\bc\.(\w+)\.(\w+)", page.read_text())
        if name in classes
    }
    assert {each for each in named if not classes[each[1]].class_traits().get(each[2])} == set()


def test_variables_that_are_named_exist() -> None:
    sources = [
        ROOT / "Makefile",
        *(
            path
            for root in ("nimbus_hub", "spawner", "tests")
            for path in (ROOT / root).rglob("*.py")
        ),
    ]
    known = set(re.findall(r"\bNIMBUS_[A-Z_]+\b", " ".join(path.read_text() for path in sources)))
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\bNIMBUS_[A-Z_]*[A-Z]\b", page.read_text())
    }
    assert {each for each in named if each[1] not in known} == set()


def test_variables_of_make_that_are_shown_exist() -> None:
    known = set(re.findall(r"^([A-Z_]+) *\?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {
        variable
        for page in PAGES
        for line in command_lines(page)
        if words_of(line)[:1] == ["make"]
        for variable in re.findall(r"\b([A-Z]+)=", line.partition("make ")[2])
    }
    assert shown <= known


def test_source_files_that_are_named_exist() -> None:
    roots = (ROOT, ROOT / "nimbus_hub", ROOT / "spawner", ROOT / "labextension")
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|ts|toml|md))`", page.read_text())
    }
    missing = {each for each in named if not any((root / each[1]).exists() for root in roots)}
    assert missing == set()


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("nimbus run --workers 2 train.py --any thing", []),
        ("nimbus run --worker 2 train.py", ["--worker"]),
        ("nimbus lease renew --for 2h", ["--for"]),
        ("nimbus leases", ["leases"]),
        ("nimbus-hub up --port 8000 --conf my.py", ["--conf"]),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: list[str]) -> None:
    program, *words = words_of(line)
    assert list(wrong_words(COMMANDS[program], words)) == wrong
