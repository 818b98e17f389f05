"""What docker/Dockerfile promises, as far as its text shows it. `make image-try` builds and runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from polytls import __version__
from polytls.cli import _parser
from polytls.config import load_settings
from polytls.settings import Mode
from tests.docker.dockerfile import DOCKER, ROOT, Instruction, stages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
ARGUMENTS, (BUILD, RUNTIME) = stages(TEXT)
SETTINGS = load_settings(ROOT / "config" / "container.toml", {}, {}).settings
_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """What a file of requirements pins: version by name."""
    return dict(_PIN.findall((DOCKER / name).read_text(encoding="utf-8")))


def test_a_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; its package is made for x86-64 alone")
    done = subprocess.run(
        [hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_rules_that_are_left_out_say_why() -> None:
    lines = TEXT.splitlines()
    ignored = [index for index, line in enumerate(lines) if line.startswith("# hadolint ignore=")]
    assert ignored
    told = {lines[index] for index in ignored if lines[index - 1].startswith("#")}
    assert told == {lines[index] for index in ignored}


def test_stages_begin_at_one_base_with_a_tag() -> None:
    assert [stage.base for stage in (BUILD, RUNTIME)] == ["${BASE}", "${BASE}"]
    name, _, tag = ARGUMENTS["BASE"].partition(":")
    assert name
    assert tag
    assert tag != "latest"


def test_only_what_is_named_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert not {path for path in allowed if path.split("/")[0] == "ca"}
    for stage in (BUILD, RUNTIME):
        for each in stage.all("COPY"):
            if "--from=" in each.text:
                continue
            for source in each.text.split()[:-1]:
                assert source.rstrip("/") in allowed, source
                assert (ROOT / source).exists(), source
    assert {"**/*.pem", "**/*.key"} <= set(rules)


def test_the_image_has_no_compiler_and_no_pip() -> None:
    installed = re.search(r"install --yes --no-install-recommends (.*?) &&", RUNTIME.all("RUN")[0].text)
    assert installed is not None
    assert installed[1].split() == ["python3"]
    assert [each.text for each in RUNTIME.all("COPY") if "--from=" in each.text] == [
        "--from=build /opt/polytls /opt/polytls"
    ]
    assert "venv --without-pip /opt/polytls" in TEXT


def test_it_runs_as_somebody_by_number() -> None:
    user = RUNTIME.one("USER").text
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    uid, gid = user.split(":")
    made = RUNTIME.all("RUN")[0].text
    assert f"useradd --uid {uid} " in made
    assert f"groupadd --gid {gid} " in made
    after = RUNTIME.instructions[RUNTIME.instructions.index(RUNTIME.one("USER")) :]
    assert not [each for each in after if each.word in ("RUN", "COPY", "ADD")]


def test_commands_are_not_read_by_a_shell() -> None:
    assert RUNTIME.one("ENTRYPOINT").exec_form == ["polytls"]
    assert RUNTIME.one("CMD").exec_form == ["serve"]
    assert RUNTIME.one("STOPSIGNAL").text == "SIGTERM"


def test_the_health_check_is_a_command_of_ours() -> None:
    check = RUNTIME.one("HEALTHCHECK")
    command = Instruction("CMD", check.text.partition("CMD ")[2]).exec_form
    assert command is not None
    assert command[0] == "polytls"
    args = _parser().parse_args(command[1:])
    assert args.local
    seconds = re.search(r"--timeout=(\d+)s", check.text)
    assert seconds is not None
    assert args.timeout < int(seconds[1]), "the sentence must be there before the engine loses patience"


def test_the_configuration_is_found_and_agrees() -> None:
    path = RUNTIME.environment()["POLYTLS_CONFIG"]
    assert f"config/container.toml {path}" in [each.text for each in RUNTIME.all("COPY")]
    volumes = RUNTIME.one("VOLUME").exec_form
    certificate = SETTINGS.certificate
    assert volumes == [str(certificate.ca_key_path.parent)] == [str(certificate.ca_cert_path.parent)]
    assert f"-m 0700 -o polytls -g polytls {volumes[0]}" in RUNTIME.all("RUN")[0].text
    assert SETTINGS.mode is Mode.MITM
    assert SETTINGS.listen.address.host == "0.0.0.0"
    assert RUNTIME.one("EXPOSE").text == str(SETTINGS.listen.address.port)


def test_python_writes_nothing() -> None:
    assert RUNTIME.environment()["PYTHONDONTWRITEBYTECODE"] == "1"


def test_labels_say_what_it_is() -> None:
    assert f"VERSION={__version__}" in [each.text for each in RUNTIME.all("ARG")]
    labels = RUNTIME.labels()
    wanted = ("title", "description", "version", "revision", "created", "licenses", "vendor")
    assert set(labels) == {f"org.opencontainers.image.{name}" for name in wanted}
    assert all(labels.values())


def test_nothing_secret_is_an_argument_or_in_the_environment() -> None:
    for stage in (BUILD, RUNTIME):
        for each in (*stage.all("ARG"), *stage.all("ENV")):
            assert not re.search(r"(?i)passw|token|secret|credential|_key\b", each.text), each.text
    # Arguments that may hold a password of an index are of the first stage, which nobody gets.
    assert not [each for each in RUNTIME.all("ARG") if each.text.startswith("PIP_")]


# What is pinned


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_every_package_is_pinned_by_hash(name: str) -> None:
    text = (DOCKER / name).read_text(encoding="utf-8")
    entries = [
        part for part in re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE) if not part.startswith("#")
    ]
    assert len(entries) == len(pins(name))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text, "no index is named"


@pytest.mark.parametrize(
    ("name", "where"),
    [("requirements.txt", "project"), ("requirements-build.txt", "build")],
)
def test_pins_are_what_the_project_allows(name: str, where: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if where == "build":
        wanted = project["build-system"]["requires"]
    else:
        wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["otlp"]
    pinned = {canonicalize_name(package): version for package, version in pins(name).items()}
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"python_version": "3.13"}):
            continue
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_the_list_of_contents_is_what_is_pinned() -> None:
    text = (DOCKER / "CONTENTS.md").read_text(encoding="utf-8")
    python = text.partition("## Python packages")[2].partition("## Debian packages")[0]
    listed: dict[str, str] = dict(re.findall(r"^\| ([\w.-]+) \| (\S+) \|$", python, re.MULTILINE))
    listed.pop("package", None)
    found = {str(canonicalize_name(name)): version for name, version in listed.items()}
    wanted = {str(canonicalize_name(name)): version for name, version in pins("requirements.txt").items()}
    assert found == {**wanted, "polytls": __version__}
    debian = text.partition("## Debian packages")[2]
    assert "| python3 |" in debian
    assert not re.search(
        r"^\| (gcc|g\+\+|cpp|clang|binutils|make|python3-pip)\b(?!-\d+-base)", debian, re.MULTILINE
    )
