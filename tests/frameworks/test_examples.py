"""The notebooks of docs/examples are run to their last cell: a kernel, a service, real jobs.

A kernel is the Python of the notebook's environment, as in a session with it. What a session has
besides (magics, IPython, matplotlib) comes after that, from the environment of the tests.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import nimbus_hub
from nimbus_hub.magics.cell import script_of_cell
from tests.frameworks.cluster import TOKEN, Cluster, environment
from tests.frameworks.engine import Engine, engine

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
ENVIRONMENTS = ("default", "tensorflow", "xgboost", "lightgbm", "gensim", "mpi")
CELL_SECONDS = 240
PACKAGE = Path(nimbus_hub.__file__).parent
KERNEL = (
    "import site; site.addsitedir({packages!r}); "
    "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
)
PYTHON = """#!{this}
import os, sys
own = {{"PATH", "HOME"}}
given = [word for name in os.environ if name not in own for word in ("--env", name)]
words = [*{words}, *given, "--workdir", os.getcwd(), {image!r}, "python", *sys.argv[1:]]
os.execvp(words[0], words)
"""


@dataclass(frozen=True)
class Outputs:
    """What the cells of a notebook have put below them."""

    items: tuple[nbformat.NotebookNode, ...]

    @property
    def text(self) -> str:
        """Return what was printed, and the results as text."""
        texts = (one.get("text") or one.data.get("text/plain", "") for one in self.items)
        return "\n".join(texts)

    @property
    def plots(self) -> int:
        """Return how many pictures there are."""
        return sum("image/png" in one.get("data", {}) for one in self.items)

    def number(self, words: str) -> float:
        """Return the one number that follows some words."""
        found = re.findall(rf"\b{re.escape(words)} ([-+.e\d]+)", self.text)
        assert len(found) == 1, f"not once {words!r}:\n{self.text}"
        return float(found[0])


@dataclass(frozen=True)
class Notebooks:
    """Runs notebooks against a service."""

    cluster: Cluster
    directory: Path

    @contextmanager
    def run(self, name: str, environment_name: str) -> Iterator[Outputs]:
        """Run all cells of a notebook; give what they show, for as long as the kernel lives."""
        began = time.monotonic()
        self.write_kernel(environment_name)
        book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        work = self.directory / name
        work.mkdir()
        place = {"metadata": {"path": str(work)}}
        client = NotebookClient(
            book, timeout=CELL_SECONDS, kernel_name=environment_name, resources=place
        )
        with client.setup_kernel():
            try:
                for number, cell in enumerate(book.cells):
                    client.execute_cell(cell, number)
            except CellExecutionError:
                print(self.told())
                raise
            items = [one for cell in book.cells for one in cell.get("outputs", ())]
            assert [one.text for one in items if one.get("name") == "stderr"] == []
            print(f"\n{name}.ipynb: {time.monotonic() - began:.1f} s")
            yield Outputs(tuple(items))

    def write_kernel(self, name: str) -> None:
        """Write how the kernel of an environment is started."""
        code = KERNEL.format(packages=sysconfig.get_path("purelib"))
        python = f"{environment(name)}/python"
        url = f"http://127.0.0.1:{self.cluster.port}/services/nimbus"
        options = ["--ext", "nimbus_hub.magics", "--log-level", "ERROR"]
        kernel = {
            "argv": [python, "-c", code, "-f", "{connection_file}", *options],
            "display_name": name,
            "language": "python",
            "env": {
                "NIMBUS_API_URL": url,
                "NIMBUS_TOKEN": TOKEN,
                "NIMBUS_ENVIRONMENT": name,
                # For what the magics start.
                "PYTHONPATH": str(PACKAGE.parent),
                # Else TensorFlow says in the notebook what it could do better.
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TF_ENABLE_ONEDNN_OPTS": "0",
            },
        }
        directory = self.directory / "jupyter" / "kernels" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "kernel.json").write_text(json.dumps(kernel))

    def told(self) -> str:
        """Return how the jobs are and what they have printed."""
        jobs = self.cluster.client.jobs(state="all")
        return "\n".join(f"{job.name}: {job.reason}\n{self.cluster.text(job)}" for job in jobs)

    def check_jobs(self, framework: str, **roles: dict[str, int]) -> None:
        """Hold that these jobs of a framework, by the ends of their names, ran and succeeded."""
        found = {}
        for job in self.cluster.client.jobs(state="all"):
            if job.framework == framework:
                counts = dict(Counter(one.role for one in job.replicas))
                found[job.name.rpartition("-")[2]] = (job.state, counts)
        assert found == {name: ("succeeded", counts) for name, counts in roles.items()}


@pytest.fixture
def notebooks(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notebooks:
    return prepared(cluster, tmp_path, monkeypatch)


def prepared(cluster: Cluster, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Notebooks:
    monkeypatch.setenv("JUPYTER_PATH", str(directory / "jupyter"))
    # Nothing of the tester's own: neither a profile nor a history.
    monkeypatch.setenv("IPYTHONDIR", str(directory / "ipython"))
    return Notebooks(cluster, directory)


def board_tags(text: str) -> dict[str, list[str]]:
    """Return what the TensorBoard of an output shows: names of scalars by run."""
    found = re.search(r"/proxy/(\d+)(/\S+/)", text)
    assert found is not None, text
    url = f"http://127.0.0.1:{found[1]}{found[2]}data/plugin/scalars/tags"
    end = time.monotonic() + 30
    while True:
        with urlopen(url, timeout=10) as answer:
            tags: dict[str, dict[str, object]] = json.load(answer)
        if tags:
            return {run: sorted(names) for run, names in tags.items()}
        assert time.monotonic() < end, "TensorBoard shows nothing"
        time.sleep(0.1)


def test_pytorch(notebooks: Notebooks) -> None:
    with notebooks.run("pytorch", "default") as outputs:
        assert board_tags(outputs.text) == {".": ["accuracy"]}
    notebooks.check_jobs("pytorch", alone={"worker": 1}, many={"worker": 2})
    assert "output/model.pt" in outputs.text
    assert outputs.number("largest difference of a weight:") < 1e-9
    assert outputs.number("alone: accuracy") == outputs.number("two workers: accuracy") > 0.85
    assert outputs.plots == 1


def test_tensorflow(notebooks: Notebooks) -> None:
    with notebooks.run("tensorflow", "tensorflow") as outputs:
        tags = board_tags(outputs.text)
    assert list(tags) == ["train"]
    assert {"epoch_accuracy", "epoch_loss"} <= set(tags["train"])
    served = {"chief": 1, "worker": 2, "ps": 1}
    notebooks.check_jobs("tensorflow", alone={"worker": 1}, many={"worker": 2}, served=served)
    assert "output/model.keras" in outputs.text
    # Single precision; the order of sums is another one.
    assert outputs.number("largest difference of a weight:") < 1e-4
    alone, many = outputs.number("alone: accuracy"), outputs.number("two workers: accuracy")
    assert many == pytest.approx(alone, abs=0.005)
    # Workers do not wait for each other: which step comes first is not settled.
    assert min(alone, outputs.number("parameter server: accuracy")) > 0.8
    assert outputs.plots == 1


def test_xgboost(notebooks: Notebooks) -> None:
    with notebooks.run("xgboost", "xgboost") as outputs:
        pass
    notebooks.check_jobs("xgboost", alone={"worker": 1}, many={"worker": 2, "tracker": 1})
    assert "output/model.ubj" in outputs.text
    assert outputs.number("largest difference of a chance:") == 0
    assert outputs.number("alone: accuracy") == outputs.number("two workers: accuracy") > 0.85
    assert outputs.plots == 1


def test_lightgbm(notebooks: Notebooks) -> None:
    with notebooks.run("lightgbm", "lightgbm") as outputs:
        pass
    notebooks.check_jobs("lightgbm", alone={"worker": 1}, many={"worker": 2})
    assert "output/model.txt" in outputs.text
    # Features of many values: each worker makes bins of its own, so models are only close.
    assert outputs.number("alone: accuracy") > 0.95
    assert outputs.number("two workers: accuracy") > 0.95
    assert outputs.number("of one mind on") > 0.95
    assert outputs.plots == 1


def test_gensim(notebooks: Notebooks) -> None:
    with notebooks.run("gensim", "gensim") as outputs:
        pass
    served = {"chief": 1, "worker": 2, "nameserver": 1, "dispatcher": 1}
    notebooks.check_jobs("gensim", alone={"worker": 1}, many=served)
    assert "output/topics.lda.state" in outputs.text
    for first_words in ("cell enzyme gene", "bank credit invest", "forest glacier lake"):
        assert outputs.text.count(first_words) == 2
    assert outputs.number("largest difference of a value:") < 1e-9
    # Which worker gets which part is not settled, and with it the order of sums.
    alone, many = outputs.number("alone:"), outputs.number("two workers:")
    assert many == pytest.approx(alone, abs=0.05)
    assert outputs.plots == 1


def test_mpi(notebooks: Notebooks) -> None:
    with notebooks.run("mpi", "mpi") as outputs:
        pass
    notebooks.check_jobs("mpi", alone={"worker": 1}, many={"worker": 3, "mpiexec": 1})
    assert "output/model.npz" in outputs.text
    assert outputs.number("largest difference of a weight:") < 1e-9
    assert "three ranks: [205.  69. 176. 166. 128.], explained 0.5175" in outputs.text
    assert outputs.plots == 1


def test_script(notebooks: Notebooks) -> None:
    with notebooks.run("script", "default") as outputs:
        pass
    many, served = {"worker": 3}, {"worker": 2, "ps": 1}
    notebooks.check_jobs("script", alone={"worker": 1}, many=many, served=served)
    assert "output/scores-2.json" in outputs.text
    assert "all the same: True" in outputs.text
    assert outputs.number("best: C=2^2, accuracy") > 0.95
    assert outputs.plots == 1


def test_caffe2_whose_python_is_in_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine() as running, containers(running, tmp_path) as programs:
        cluster = Cluster(tmp_path, {"default": environment("default"), "caffe2": str(programs)})
        cluster.start()
        try:
            notebooks = prepared(cluster, tmp_path, monkeypatch)
            with notebooks.run("caffe2", "default") as outputs:
                pass
            notebooks.check_jobs("caffe2", alone={"worker": 1}, many={"worker": 2})
        finally:
            for job in cluster.client.jobs(state="live"):
                cluster.client.stop(job.id)
                cluster.wait(job, 30)
            cluster.kill()
    assert "output/model.npz" in outputs.text
    assert outputs.number("largest difference of a weight:") < 1e-6
    assert outputs.number("alone: accuracy") == outputs.number("two shards: accuracy") > 0.85
    assert outputs.plots == 1


@contextmanager
def containers(running: Engine, state: Path) -> Iterator[Path]:
    """Give an environment whose python runs in containers, with the directories of the jobs.

    All are on the network of one container, which stands for the host.
    """
    image, label = running.image("caffe2"), "nimbus-test-example"
    host = running.docker("run", "--detach", "--init", "--label", label, image, "sleep", "600")
    words = running.command("run", "--rm", "--init", "--label", label)
    words += ["--network", f"container:{host}", "--user", f"{os.getuid()}:{os.getgid()}"]
    words += ["--volume", f"{PACKAGE}:{PACKAGE}:ro", "--volume", f"{state}:{state}"]
    programs = state / "programs"
    programs.mkdir()
    python = programs / "python"
    python.write_text(PYTHON.format(this=sys.executable, words=words, image=image))
    python.chmod(0o755)
    try:
        yield programs
    finally:
        left = running.docker("ps", "-aq", "--filter", f"label={label}").split()
        running.docker("rm", "--force", *left)
    assert len(left) == 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_saved_without_output_and_says_what_each_cell_is_for(name: str) -> None:
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    cells = book.cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code"] * (len(cells) // 2)
    code = cells[1::2]
    assert {(tuple(cell.outputs), cell.execution_count) for cell in code} == {((), None)}


@pytest.mark.parametrize("name", sorted(set(NOTEBOOKS) - {"first_run"}))
def test_one_process_and_many_run_the_same_text(name: str) -> None:
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    scripts = {}
    for cell in book.cells:
        line, _, body = cell.source.partition("\n")
        if line.startswith("%%nimbus_run"):
            scripts[line.split()[2]] = script_of_cell(body)
    assert scripts["alone"] == scripts["many"]
