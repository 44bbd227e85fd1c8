"""Patterns of ignore files: each case is what `git check-ignore` answers."""

from __future__ import annotations

import pytest

from nimbus_hub.client.ignore import Patterns


@pytest.mark.parametrize(
    ("lines", "left_out", "kept"),
    [
        ("a", ["a", "a/", "b/a"], ["ab", "b/"]),
        ("a/", ["a/", "b/a/"], ["a"]),
        ("/a", ["a", "a/"], ["b/a"]),
        ("a/b", ["a/b"], ["c/a/b", "b"]),
        ("*.py", ["x.py", "b/x.py", ".py"], ["x.pyc"]),
        ("a/*", ["a/b"], ["b/a/b"]),
        ("**/b", ["b", "a/b", "c/a/b"], ["ab"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab"]),
        ("x?", ["xy"], ["x", "xyz"]),
        ("[ab]c", ["ac", "bc"], ["cc", "[ab]c"]),
        ("[!ab]c", ["cc"], ["ac"]),
        ("[a-c][]x]", ["b]", "ax"], ["dx", "b"]),
        ("[&&a]", ["&", "a"], ["b"]),
        ("a[/]b", [], ["a/b"]),
        ("[z-a]", [], ["a", "[z-a]"]),
        ("[a", [], ["a", "[a"]),
        ("a\\", [], ["a", "a\\"]),
        ("\\#a", ["#a"], ["a"]),
        ("\\!a", ["!a"], ["a"]),
        ("\\[a]", ["[a]"], ["a"]),
        ("# a", [], ["a", "# a"]),
        ("a  ", ["a"], ["a  "]),
        ("a\\ ", ["a "], ["a", "a\\"]),
        ("*\\  ", ["a "], ["a", "a  x"]),
        ("*.csv\n!keep.csv", ["a.csv"], ["keep.csv", "b/keep.csv"]),
        ("!a\na", ["a"], []),
        ("\n \n/\n!", [], ["a", "a/"]),
    ],
)
def test_the_last_line_that_matches_decides(
    lines: str, left_out: list[str], kept: list[str]
) -> None:
    patterns = Patterns(lines.split("\n"))
    assert [path for path in [*left_out, *kept] if patterns.leave_out(path)] == left_out
