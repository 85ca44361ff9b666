"""The repository keeps its own rules: locks, names, front door, containers, documents."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from scripts import versitygw
from scripts.environment import SUPERSETS, pins
from tests.support.repository import (
    MAX_FILE_BYTES,
    ROOT,
    adr_faults,
    changelog_faults,
    compose_faults,
    host_faults,
    image_faults,
    link_faults,
    lock_faults,
    makefile_faults,
    path_faults,
    texts,
    tracked_files,
)

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
ADRS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins_of(name: str) -> dict[str, str]:
    return dict(pins(read(f"requirements/{name}.txt")))


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))


# --- locks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_pins_with_hashes_and_no_addresses(lock):
    text = lock.read_text(encoding="utf-8")
    assert lock_faults(text) == []
    assert pins(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("requests==2.0 \\\n", "has no hash"),
        ("requests>=2.0 \\\n    --hash=sha256:" + "0" * 64, "neither a pin nor a hash"),
        ("requests==2.0 \\\n    --hash=md5:" + "0" * 32, "neither a pin nor a hash"),
        ("--index-url https://index.example/simple\n", "names an address"),
        ("requests @ https://files.example/requests.whl \\\n", "names an address"),
        ("-e .\n", "neither a pin nor a hash"),
    ],
)
def test_an_unlocked_requirement_is_found(text, fault):
    assert any(fault in found for found in lock_faults(text))


def test_the_locks_agree_on_every_version():
    together: dict[str, str] = {}
    for name in ("demo", "runtime", "dev"):
        for package, version in pins_of(name).items():
            assert together.setdefault(package, version) == version, package


def test_a_superset_lock_holds_all_of_the_smaller_one():
    for smaller, larger in SUPERSETS.items():
        assert pins_of(smaller).items() <= pins_of(larger).items()


def test_every_dependency_of_the_project_is_locked():
    groups = {"runtime": project()["project"]["dependencies"], **project()["project"]["optional-dependencies"]}
    for group, lock in {"runtime": "runtime", "demo": "demo", "test": "dev", "lint": "dev"}.items():
        names = {re.split(r"[\[<>=~! ;]", item)[0].lower() for item in groups[group]}
        assert names <= set(pins_of(lock)), group


# --- what must not be in any file -----------------------------------------------------------------------------------


def test_no_file_names_a_package_registry():
    assert {name: faults for name, text in texts() if (faults := host_faults(text))} == {}


def test_no_file_names_a_path_of_somebodys_machine():
    assert {name: faults for name, text in texts() if (faults := path_faults(text))} == {}


@pytest.mark.parametrize("place", ["home/ann/tallystick", "Users/ann/.venv", "root/tallystick", "work/main"])
def test_a_path_of_a_machine_is_found_and_a_relative_one_is_not(place):
    assert path_faults(f"cd /{place}\n")
    assert path_faults(f"cd ./{place} and <root>/{place}\n") == []


def test_no_file_is_larger_than_a_megabyte():
    assert [path.name for path in tracked_files() if path.stat().st_size > MAX_FILE_BYTES] == []


# --- front door -----------------------------------------------------------------------------------------------------


def test_every_target_of_the_makefile_says_what_it_does():
    assert makefile_faults(read("Makefile")) == []


def test_a_target_without_help_or_phony_is_found():
    assert makefile_faults("demo: setup\n\techo\n") == ["demo has no help text", "demo is not phony"]


def test_make_alone_lists_every_target():
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make (\S+) ", shown.stdout, flags=re.MULTILINE))
    declared = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), flags=re.MULTILINE))
    assert listed == declared
    assert {"demo", "test", "help", "run", "lint", "interop", "bench", "clean", "lock", "fmt"} <= listed


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_script_parses_stops_at_errors_and_is_executable(script):
    subprocess.run(["sh", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/sh\n# ")
    assert re.search(r"^set -e?u", text, flags=re.MULTILINE)
    assert script.stat().st_mode & stat.S_IXUSR


def test_ci_runs_what_the_makefile_offers():
    parts = re.findall(r"^\s*part make ([a-z]+)$", read(".ci/run"), flags=re.MULTILINE)
    assert parts == ["lint", "test", "interop"]


def test_pre_commit_runs_the_checks_of_lint_and_nothing_from_elsewhere():
    config = yaml.safe_load(read(".pre-commit-config.yaml"))
    (default,) = re.findall(r"\|\| set -- (.+)$", read("scripts/lint.sh"), flags=re.MULTILINE)
    assert [source["repo"] for source in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == [f"sh scripts/lint.sh {check}" for check in default.split()]


# --- what is shipped ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_packages_code_and_data(wheel):
    packages = tuple(f"{name}/" for name in project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    names = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert {name for name in names if name.startswith(packages)} - wheel == set()


def test_the_wheel_holds_the_licence_and_no_tests_or_scripts(wheel):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    assert {name.split("/")[0] for name in wheel} & {"tests", "scripts", "benchmarks", "requirements", "docs"} == set()


def test_the_source_distribution_holds_every_file_that_is_tracked(tmp_path):
    """Also those that the tests read: whoever unpacks it runs them."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {path.relative_to(ROOT).as_posix() for path in tracked_files()} - held == set()


# --- containers -----------------------------------------------------------------------------------------------------


def test_the_compose_file_is_pinned_closed_and_watched():
    assert compose_faults(yaml.safe_load(read("docker-compose.yml"))) == []


def test_the_compose_file_has_service_gateway_database_and_storage():
    services = yaml.safe_load(read("docker-compose.yml"))["services"]
    assert {"service", "gateway", "database", "storage"} <= set(services)
    assert "--versioning-dir" in services["storage"]["command"][0]


def test_no_container_keeps_rights_that_it_does_not_need_or_memory_without_bound():
    services = yaml.safe_load(read("docker-compose.yml"))["services"]
    assert {name for name, service in services.items() if service.get("cap_drop") != ["ALL"]} == set()
    assert {name for name, one in services.items() if one.get("security_opt") != ["no-new-privileges:true"]} == set()
    assert [mount for one in services.values() for mount in one.get("tmpfs", []) if "size=" not in mount] == []


def test_only_what_stays_up_is_started_again():
    services = yaml.safe_load(read("docker-compose.yml"))["services"]
    lasting = {name for name, service in services.items() if "restart" in service}
    assert lasting == {"service", "gateway", "database", "storage"}


BAD_SERVICES = {
    "is not pinned to a version": {"image": "postgres:latest"},
    "has no tag": {"image": "postgres"},
    "beyond this machine": {"ports": ["8787:8787"]},
    "publishes 0.0.0.0": {"ports": ["0.0.0.0:8787:8787"]},
    "holds a secret in clear": {"environment": {"POSTGRES_PASSWORD": "example"}},
    "has no health check": {"healthcheck": None},
    "stays up without a health check": {"restart": "always", "healthcheck": {"disable": True}},
    "is privileged": {"privileged": True},
    "undeclared volume": {"volumes": ["data:/data"]},
    "which secrets lacks": {"secrets": ["password"]},
    "which networks lacks": {"networks": ["back"]},
    "which is not there": {"depends_on": {"other": {"condition": "service_started"}}},
}


@pytest.mark.parametrize("fault", BAD_SERVICES)
def test_a_careless_compose_service_is_found(fault):
    good = {"image": "postgres:17.6", "healthcheck": {"test": ["CMD", "true"]}}
    assert compose_faults({"services": {"a": good}, "secrets": {}}) == []
    found = compose_faults({"services": {"a": {**good, **BAD_SERVICES[fault]}}, "secrets": {}})
    assert any(fault in sentence for sentence in found)


def test_a_secret_that_is_not_a_file_is_found():
    compose = {"services": {}, "secrets": {"password": {"environment": "PASSWORD"}}}
    assert compose_faults(compose) == ["the secret password is not a file"]


def test_the_image_is_built_from_hashes_and_runs_without_root():
    text = read("Dockerfile")
    assert image_faults(re.search(r"^ARG PYTHON_IMAGE=(.+)$", text, flags=re.MULTILINE)[1]) == []
    assert set(re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    assert "--require-hashes --requirement requirements/runtime.txt" in text
    assert re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)[-1] not in {"root", "0", "0:0"}
    assert "pip uninstall --yes hatchling" in text
    assert not re.search(r"^VOLUME", text, flags=re.MULTILINE)
    assert "/healthz" in re.search(r"^HEALTHCHECK.*\n.*$", text, flags=re.MULTILINE)[0]


def test_everything_that_the_image_copies_is_let_through_and_exists():
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.+)$", read("Dockerfile"), flags=re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    assert sources == allowed
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_versions_that_are_written_twice_agree():
    services = yaml.safe_load(read("docker-compose.yml"))["services"]
    assert services["service"]["image"] == f"tallystick:{project()['project']['version']}"
    assert services["storage"]["image"] == f"versity/versitygw:{versitygw.VERSION}"


# --- documents ------------------------------------------------------------------------------------------------------


def test_a_decision_record_has_question_options_choice_consequences():
    assert {path.name: faults for path in ADRS if (faults := adr_faults(path.read_text(encoding="utf-8")))} == {}


def test_a_decision_record_has_a_speaking_name_and_stands_in_the_index():
    listed = re.findall(r"\]\((\d[^)]+)\)", read("docs/adr/README.md"))
    assert listed == [path.name for path in ADRS]
    assert [name for name in listed if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []


def test_decision_records_are_numbered_without_gaps():
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


ADR_HEAD = "# Title\n\nStatus: superseded by 0042. Date: 2026-01-02.\n\n"
ADR_BODY = "## Question\nWhy?\n## Options\nThat.\n## Choice\nThis.\n## Consequences\nNone.\n"


@pytest.mark.parametrize(
    "text",
    [
        ADR_HEAD,
        f"{ADR_HEAD}## Question\nWhy?\n## Choice\nThis.\n## Options\nThat.\n## Consequences\nNone.\n",
        f"{ADR_HEAD}## Question\nWhy?\n## Options\n\n## Choice\nThis.\n## Consequences\nNone.\n",
        f"# Title\n\n{ADR_BODY}",
        f"# Title\n\nStatus: accepted.\n\n{ADR_BODY}",
        f"# Title\n\nStatus: superseded. Date: 2026-01-02.\n\n{ADR_BODY}",
    ],
)
def test_a_decision_record_with_a_part_missing_misplaced_or_empty_is_found(text):
    assert adr_faults(f"{ADR_HEAD}{ADR_BODY}") == []
    assert adr_faults(text)


def test_the_changelog_has_the_form_of_keep_a_changelog():
    assert changelog_faults(read("CHANGELOG.md")) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "does not start with its title"),
        ("# Changelog\n\n## [1.0.0] - 2026-01-01\n", "Unreleased"),
        ("# Changelog\n\n## [Unreleased]\n\n## [1.0.0]\n", "has no date"),
        ("# Changelog\n\n## [Unreleased]\n\n## [soon] - 2026-01-01\n", "is no version"),
        ("# Changelog\n\n## [Unreleased]\n\n### Improved\n", "is no kind of change"),
        ("# Changelog\n\n## [Unreleased]\n\n## [1.0.0] - 2026-01-01\n\n## [1.1.0] - 2026-02-01\n", "newest first"),
    ],
)
def test_a_changelog_of_another_form_is_found(text, fault):
    assert any(fault in found for found in changelog_faults(text))


def test_links_between_documents_lead_somewhere():
    documents = [(name, text) for name, text in texts() if Path(name).suffix == ".md"]
    assert {name: faults for name, text in documents if (faults := link_faults(name, text))} == {}
    assert link_faults("README.md", "[gone](docs/no-such-file.md)")


def test_the_licence_is_the_whole_of_apache_2():
    text = read("LICENSE")
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability." in text
    assert project()["project"]["license"] == "Apache-2.0"
