from __future__ import annotations

from pathlib import Path

import pytest

from nimbus_hub.client import GroupRequest, scan
from nimbus_hub.client.run_options import (
    RunOptions,
    Script,
    job_request,
    parse_run,
)
from nimbus_hub.errors import InvalidRequest


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    for path in ("train.py", "sub/eval.py", "go.sh", "tool", "notes.txt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (tmp_path / "outside.py").touch()
    return root


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train.py", RunOptions(argv=("train.py",))),
        ("train.py --lr 0.1", RunOptions(argv=("train.py", "--lr", "0.1"))),
        ("train.py --workers 4", RunOptions(argv=("train.py", "--workers", "4"))),
        ("--workers 4 -- train.py --x", RunOptions(workers=4, argv=("train.py", "--x"))),
        ("-- echo -- hi", RunOptions(argv=("echo", "--", "hi"))),
        ("--gpus A100:2 x.py", RunOptions(gpus="A100:2", argv=("x.py",))),
        ("--gpus=-1 x.py", RunOptions(gpus="-1", argv=("x.py",))),
        ("--env A=1 --env B=x=y x.py", RunOptions(env=("A=1", "B=x=y"), argv=("x.py",))),
        ("--follow x.py", RunOptions(follow=True, argv=("x.py",))),
        ("--detach x.py", RunOptions(follow=False, argv=("x.py",))),
        ("--dry-run --retries 2 x.py", RunOptions(dry_run=True, retries=2, argv=("x.py",))),
        (
            "--name n --framework pytorch --cpus 2 --memory 4G --workdir w --environment e "
            "--duration 2h",
            RunOptions(
                name="n",
                framework="pytorch",
                cpus="2",
                memory="4G",
                workdir="w",
                environment="e",
                duration="2h",
            ),
        ),
        (
            "--chief --evaluator --ps 2 --ps-cpus 4 --ps-memory 8G --gpus A100,V100:0.5 x.py",
            RunOptions(
                chief=True,
                evaluator=True,
                ps=2,
                ps_cpus="4",
                ps_memory="8G",
                gpus="A100,V100:0.5",
                argv=("x.py",),
            ),
        ),
        (
            "--topology pack:rack --topology ps=spread --datacenter east --input s3://b/x=120G "
            "--input s3://b/y --output s3://b/z --step-bytes 500M x.py",
            RunOptions(
                topology=("pack:rack", "ps=spread"),
                datacenter="east",
                inputs=("s3://b/x=120G", "s3://b/y"),
                outputs=("s3://b/z",),
                step_bytes="500M",
                argv=("x.py",),
            ),
        ),
        (
            "--queue night --priority -5 --preemptible --expected 2h x.py",
            RunOptions(queue="night", priority=-5, preemptible=True, expected="2h", argv=("x.py",)),
        ),
        ("", RunOptions()),
    ],
)
def test_a_line_is_read(line: str, expected: RunOptions) -> None:
    assert parse_run(line.split(), "%nimbus_run") == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--worker 2 x.py", "no option --worker, did you mean --workers?"),
        ("--gpu 2 x.py", "no option --gpu, did you mean --gpus?"),
        ("--detached x.py", "no option --detached, did you mean --detach?"),
        ("--lr 0.1 train.py", "no option --lr; there are --name --framework"),
        ("-n 2 x.py", "no option -n; there are"),
        ("--workers two x.py", "'two' is not a valid integer"),
        ("--gpus", "--gpus"),
    ],
)
def test_a_wrong_option_names_the_right_one(line: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_run(line.split(), "%nimbus_run")
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("words", "argv", "path"),
    [
        (["train.py", "--lr", "1"], ("python", "-u", "train.py", "--lr", "1"), "train.py"),
        (["./train.py"], ("python", "-u", "train.py"), "train.py"),
        (["sub/../train.py"], ("python", "-u", "train.py"), "train.py"),
        (["sub/eval.py"], ("python", "-u", "sub/eval.py"), "sub/eval.py"),
        (["go.sh"], ("bash", "go.sh"), "go.sh"),
        (["./tool", "x"], ("./tool", "x"), "tool"),
        (["echo", "hi"], ("echo", "hi"), None),
        (["python3.11", "-m", "x"], ("python3.11", "-m", "x"), None),
        (["/bin/echo"], ("/bin/echo",), None),
    ],
)
def test_the_first_word_is_a_script_or_a_program(
    words: list[str], argv: tuple[str, ...], path: str | None, workdir: Path
) -> None:
    assert Script.find(words, workdir) == Script(argv, path)


def test_an_absolute_path_inside_is_made_relative(workdir: Path) -> None:
    (workdir.parent / "link").symlink_to(workdir)
    for root in (workdir, workdir.parent / "link"):
        assert Script.find([str(root / "train.py")], root).path == "train.py"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nope.py"], "script 'nope.py' does not exist in "),
        (["sub"], None),
        (["./nope"], "script './nope' does not exist in "),
        (["model.pt"], "script 'model.pt' does not exist in "),
        (["../outside.py"], "script '../outside.py' is outside of the working directory"),
        (["sub/"], "does not exist"),
        ([], "name a script to run"),
    ],
)
def test_a_wrong_script_is_named_with_the_remedy(
    words: list[str], text: str | None, workdir: Path
) -> None:
    if text is None:
        assert Script.find(words, workdir).argv == tuple(words)
        return
    with pytest.raises(InvalidRequest, match=text):
        Script.find(words, workdir)


def test_a_script_that_the_ignore_file_leaves_out_is_told(workdir: Path) -> None:
    (workdir / ".gitignore").write_text("train.py\n")
    with pytest.raises(InvalidRequest, match="left out of the job's files by the ignore file"):
        Script.find(["train.py"], workdir).check_in(scan(workdir))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (RunOptions(workers=0), "workers must be at least 1, got 0"),
        (RunOptions(memory="lots"), "memory must be a size like 4G or 512M, got 'lots'"),
        (RunOptions(cpus="0"), "cpus must be more than 0, got '0'"),
        (RunOptions(gpus="A100"), "gpus must be a number, a share of one GPU like 0.5, or MODEL"),
        (RunOptions(gpus="1.5"), "gpus must be a whole number or a share of one GPU, got 1.5"),
        (RunOptions(ps=-1), "ps must be at least 0, got -1"),
        (RunOptions(ps=1, ps_cpus="0"), "cpus must be more than 0, got '0'"),
        (RunOptions(ps=1, ps_memory="x"), "memory must be a size like 4G or 512M, got 'x'"),
        (
            RunOptions(topology=("near",)),
            "topology must be one of pack, pack:host, pack:rack, spread, spread:host, any, "
            "got 'near'",
        ),
        (
            RunOptions(topology=("ps=spread",)),
            "topology 'ps=spread' is for 'ps', which this job does not have; it has worker",
        ),
        (RunOptions(inputs=("data.csv",)), "data must be a URL like s3://bucket/path"),
        (RunOptions(priority=1001), "priority must be from -1000 to 1000, got 1001"),
        (RunOptions(expected="soon"), "expected: duration must be like 90m, 2h or 1d, got 'soon'"),
        (RunOptions(step_bytes="big"), "step bytes: memory must be a size like 4G or 512M"),
        (RunOptions(gpus="-1"), "gpus must be at least 0, got -1"),
        (RunOptions(duration="later"), "duration must be like 90m"),
        (RunOptions(env=("NOT_SET_HERE",)), "env 'NOT_SET_HERE' is not set here"),
        (RunOptions(env=("=x",)), "env must be NAME=VALUE"),
        (RunOptions(retries=101), "retries must be at least 0 and at most 100, got 101"),
    ],
)
def test_wrong_amounts_are_refused_here(options: RunOptions, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        job_request(options, ("python", "-u", "train.py"))
    assert text in caught.value.message


def test_the_request_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMBUS_ENVIRONMENT", "torch")
    monkeypatch.setenv("HERE", "now")
    line = "--framework pytorch --workers 2 --gpus A100:1 --env A=1 --env HERE --retries 1"
    line += " --option algorithm=ring --stall 10m"
    options = parse_run(line.split(), "x")
    request = job_request(options, ("python", "-u", "sub/train.py"), "d" * 64)
    assert request.body() == {
        "argv": ("python", "-u", "sub/train.py"),
        "name": "train",
        "framework": "pytorch",
        "imports": (),
        "groups": [
            {
                "role": "worker",
                "count": 2,
                "cpus": "1",
                "memory": "2G",
                "gpus": "A100:1",
                "topology": None,
            },
        ],
        "env": {"A": "1", "HERE": "now"},
        "snapshot": "d" * 64,
        "environment": "torch",
        "duration": None,
        "retries": 1,
        "stall": "10m",
        "options": {"algorithm": "ring"},
        "datacenter": None,
        "inputs": (),
        "outputs": (),
        "queue": "default",
        "priority": 0,
        "preemptible": False,
        "expected": None,
        "step_bytes": None,
        "gang": None,
        "pdb": False,
    }


def test_roles_are_asked_for_in_the_order_of_ranks_and_only_workers_sizes_are_shared() -> None:
    line = (
        "--workers 3 --gpus 1 --cpus 4 --memory 8G --chief --ps 2 --evaluator "
        "--topology pack:rack --topology ps=spread:host"
    )
    groups = job_request(parse_run(line.split(), "x"), ("python", "x.py")).groups
    assert groups == (
        GroupRequest("chief", 1, "4", "8G", "1"),
        GroupRequest("worker", 3, "4", "8G", "1", "pack:rack"),
        GroupRequest("ps", 2, "1", "2G", 0, "spread:host"),
        GroupRequest("evaluator", 1, "4", "8G", "1"),
    )
