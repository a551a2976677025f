"""Every *.nf.test gives what its process or workflow takes and reads what that emits, as far as the text tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted(path for folder in ("modules", "subworkflows") for path in (ROOT / folder).rglob("*.nf.test"))
RUN = r'run\("(\w+)"(?:, alias: "(\w+)")?\)'


def interface(script: Path, name: str) -> tuple[list[int], set[str]]:
    """Return the number of elements of each input of a process or workflow, and the names of what it emits."""
    text = script.read_text(encoding="utf-8")
    body = re.split(rf"^(?:process|workflow) {name} \{{$", text, flags=re.M)[1].split("\n}", 1)[0] + "\n"
    sections = dict(re.findall(r"^    (\w+):\n(.*?)(?=^    \w+:\n|\Z)", body, flags=re.M | re.S))
    taken = [line for line in sections.get("input", sections.get("take", "")).split("\n") if line.strip()]
    emitted = re.findall(r"\bemit: (\w+)", sections.get("output", ""))
    emitted += re.findall(r"^\s*(\w+)(?= =|\s*(?://.*)?$)", sections.get("emit", ""), flags=re.M)
    return [len(re.findall(r"\b(?:val|path)\(", line)) for line in taken], set(emitted)


def blocks(text: str, opening: str) -> list[tuple[tuple[str, ...], str]]:
    """Return the groups of each opening, and what follows it up to the brace that closes it."""
    found = re.findall(rf"^( *){opening} \{{\n(.*?)\n\1\}}$", text, flags=re.M | re.S)
    return [(tuple(groups), body) for _, *groups, body in found]


def elements(expression: str) -> int:
    """Return the number of elements of the last tuple of an expression; 0 if it makes none."""
    inner = expression.rpartition("tuple(")[2] if "tuple(" in expression else ")"
    while (shorter := re.sub(r"[(\[{][^()\[\]{}]*[)\]}]", "0", inner)) != inner:
        inner = shorter
    return len([part for part in inner.split(")")[0].split(",") if part.strip()])


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.parents[1].relative_to(ROOT).as_posix())
def test_inputs_and_outputs_are_those_of_the_process(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    interfaces, calls = {}, []
    if subject := re.search(r'^    (process|workflow) "(\w+)"$', text, flags=re.M):
        kind, name = subject.groups()
        interfaces[kind] = interface(path.parents[1] / "main.nf", name)
        calls = [(kind, body) for _, when in blocks(text, "when") for _, body in blocks(when, kind)]
        assert len(calls) == text.count('test("')
    for (name, alias), body in blocks(text, RUN):
        script = re.findall(r'script "(.+)"', body)[0]
        interfaces[alias or name] = interface(ROOT / script, name)
        calls.append((alias or name, body))
    for name, body in calls:
        given = re.findall(r"input\[(\d+)\] = (.*?)(?=input\[\d+\] =|\"\"\"|\Z)", body, flags=re.S)
        wanted = interfaces[name][0]
        assert [int(index) for index, _ in given] == list(range(len(wanted))), name
        for (index, expression), count in zip(given, wanted, strict=True):
            assert not count or elements(expression) in (0, count), f"{name}: input[{index}]"
    for name, output in re.findall(r"\b(\w+)\.out\.(\w+)", text):
        assert output in interfaces[name][1], f"{name}.out.{output}"
