"""What the documents show is true: Python runs, commands parse, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from convc.cli import VERBS, _app
from convc.cli.exits import UsageError
from convc.schedules.table import ALGORITHMS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    p
    for p in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md")))
    if p.is_file()
]


@dataclass(frozen=True)
class Fence:
    """A fenced block: where it is, its language and its text."""

    place: str
    language: str
    text: str


def fences(path: Path, *languages: str) -> list[Fence]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1] in languages:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Fence(f"{path.relative_to(ROOT)}:{line}", match[1], match[2]))
    return found


PYTHON = [f for path in DOCUMENTS for f in fences(path, "python")]


def commands(fence: Fence) -> list[str]:
    """Return the `convc ...` lines; in a console only those behind a prompt, comments and pipes cut off."""
    found = []
    for line in fence.text.replace("\\\n", " ").splitlines():
        prompt, command = re.fullmatch(r"(\$ )?(.*)", line.strip()).groups()
        if fence.language == "console" and not prompt:
            continue
        words = shlex.split(re.split(r"\s[|>]\s", command)[0], comments=True)
        if words and words[0] == "convc":
            found.append(shlex.join(words[1:]))
    return found


def test_there_is_a_readme_with_a_session():
    readme = ROOT / "README.md"
    assert readme in DOCUMENTS
    assert fences(readme, "python")
    assert any(commands(f) for f in fences(readme, "console"))


@pytest.mark.parametrize("fence", PYTHON, ids=lambda f: f.place)
def test_python_runs(fence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(fence.text, fence.place, "exec")
    space: dict[str, object] = {"__name__": "document"}
    exec(code, space)
    assert len(space) > 2


SHELL = [
    pytest.param(command, id=f"{fence.place} convc {command}")
    for path in DOCUMENTS
    for fence in fences(path, "console", "sh", "bash")
    for command in commands(fence)
]


def verbs() -> dict[str, Any]:
    """Return the program's commands; click's classes, which typer has a copy of, or not."""
    return typer.main.get_command(_app).commands  # type: ignore[attr-defined]


def parse(arguments: list[str]) -> dict[str, object]:
    """Parse a command line as the program would, run nothing, and return the parameters."""
    name, *rest = arguments
    known = verbs()
    while name in known and hasattr(known[name], "commands"):
        known, (name, *rest) = known[name].commands, rest
    assert name in known, f"no verb '{name}'"
    return known[name].make_context(name, rest).params


@pytest.mark.parametrize("command", SHELL)
def test_commands_parse(command):
    assert parse(shlex.split(command))


def test_a_command_with_an_unknown_option_would_be_found():
    with pytest.raises(UsageError, match="No such option: --no-such-option"):
        parse(["compile", "model.onnx", "--no-such-option"])


def test_options_that_the_text_names_exist():
    known = {"--help", "--version"}
    commands = [
        c for verb in verbs().values() for c in (verb, *getattr(verb, "commands", {}).values())
    ]
    for command in commands:
        for parameter in command.params:
            known |= {o for o in (*parameter.opts, *parameter.secondary_opts) if o.startswith("--")}
    unknown = []
    for path in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"`([^`\n]+)`", text):
            # Other programs have options of their own.
            if re.match(r"(pip|pytest|python|make|git|apt-get|g\+\+)\b", code):
                continue
            unknown += [
                f"{path.name}: {o}"
                for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)
                if o not in known
            ]
    assert unknown == []


def test_verbs_and_algorithms_are_all_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"`convc ([a-z| -]+)`", text)
    assert listed
    assert listed[1].split(" | ") == list(verbs())
    assert len(verbs()) > len(VERBS)
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert set(rows) == {a.name for a in ALGORITHMS}


def slug(heading: str) -> str:
    """Return a heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def links() -> list[object]:
    found = []
    for path in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
        targets = re.findall(r"\]\(([^)\s]+)\)", text)
        found += [
            pytest.param(path, target, id=f"{path.name} {target}")
            for target in targets
            if not re.match(r"[a-z]+:", target)
        ]
    return found


@pytest.mark.parametrize(("path", "target"), links())
def test_links_lead_somewhere(path, target):
    file, _, anchor = target.partition("#")
    found = (path.parent / file).resolve() if file else path
    assert found.exists(), f"{path.name} links to {target}, which does not exist"
    if anchor:
        headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)
        assert anchor in map(slug, headings)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_files_that_the_text_names_exist(path):
    """Files and folders of the repository in backquotes, such as `convc/ir/`."""
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:convc|tests|benchmarks|examples|docs|tuning_logs)/[\w./]*)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert missing == []
