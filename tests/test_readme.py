"""The README's examples do what it says."""

from __future__ import annotations

import re
import subprocess
import sys

from harness import REPOSITORY

from cloudpilot.cli import COMMANDS, run_command

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs() -> None:
    (example,) = [block for block in blocks("python") if "Sandbox.create" in block and "async" not in block]
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "42\n\nhello ['a.txt']\n1\n2\n3\n3\n"


def test_the_commands_and_options_exist() -> None:
    text = "\n".join(blocks("sh"))
    commands = re.findall(r"pilot (\w+)", text)
    assert set(commands) <= {*COMMANDS}, commands
    known = run_command.parser()._option_string_actions
    for line in text.splitlines():
        if line.startswith("pilot run "):
            before = line.partition(" -- ")[0]
            for option in re.findall(r"(--[a-z]+)", before):
                assert option in known, line


def test_links_lead_somewhere() -> None:
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/concepts/architecture.md",
        "docs/concepts/threat-model.md",
    ):
        path = REPOSITORY / name
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), (name, target)


def test_what_is_said_to_be_missing_is() -> None:
    table = (REPOSITORY / "docs/reference/system-calls.md").read_text()
    (sentence,) = re.findall(r"or not at all\. There is no\s(.*?)\.\n", README, re.DOTALL)
    for name in re.findall(r"`(\w+)`", sentence):
        supports = re.findall(rf"\| `{name}\w*` \| (\w+) \|", table)
        assert supports, name
        assert set(supports) <= {"unsupported", "refused"}, name
