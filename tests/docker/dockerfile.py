"""Reads a Dockerfile into its instructions, as far as tests want to know them.

It joins lines that end with a backslash and leaves out comments, as the Dockerfile reference says. Left
out: heredocs and parser directives, which ours does not use.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its word in capitals, and its text in one line."""

    word: str
    text: str

    @property
    def exec_form(self) -> list[str] | None:
        """The words of a command that no shell reads; None where one does."""
        start = self.text.find("[")
        if start < 0 or not self.text.endswith("]"):
            return None
        found = json.loads(self.text[start:])
        return found if isinstance(found, list) else None


@dataclass(frozen=True, slots=True)
class Stage:
    """FROM and what follows it. `name`: of ``AS``, or empty."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[Instruction]:
        return [each for each in self.instructions if each.word == word]

    def one(self, word: str) -> Instruction:
        (found,) = self.all(word)
        return found

    def environment(self) -> dict[str, str]:
        pairs = " ".join(each.text for each in self.all("ENV"))
        return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', pairs)}

    def labels(self) -> dict[str, str]:
        pairs = " ".join(each.text for each in self.all("LABEL"))
        return dict(re.findall(r'([\w.]+)="([^"]*)"', pairs))


def instructions(text: str) -> list[Instruction]:
    """Every instruction, in order."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(kept))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        found.append(Instruction(word.upper(), rest.strip()))
    return found


def stages(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first FROM, with their defaults, and the stages."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for each in instructions(text):
        if each.word == "FROM":
            base, _, name = each.text.partition(" AS ")
            found.append(Stage(base, name, ()))
        elif found:
            last = found[-1]
            found[-1] = Stage(last.base, last.name, (*last.instructions, each))
        else:
            name, _, default = each.text.partition("=")
            arguments[name] = default
    return arguments, found
