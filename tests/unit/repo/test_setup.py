"""The set-up behind the Makefile: what it installs, when it asks, and what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from scripts import environment, machine, versitygw
from scripts.console import CommandError, Steps, run_logged
from scripts.machine import Caller, Need, plan_commands
from tests.support.repository import ROOT


def need(*, present: bool) -> Need:
    return Need(what="a thing", why="to test", packages=("thing",), present=lambda: present)


def executable(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def refuse_to_answer(question: str) -> str:
    raise AssertionError(question)


@pytest.fixture
def apt(monkeypatch):
    """Record what would be run instead of running it; apt knows every package until told otherwise."""
    ran: list[list[str]] = []
    monkeypatch.setattr(machine, "run_logged", lambda command, **_: ran.append(list(command)))
    monkeypatch.setattr(machine, "_known_to_apt", lambda _: True)
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    return ran


# --- whom it asks ---------------------------------------------------------------------------------------------------


INSTALL = ["apt-get", "install", "thing"]


def caller(*, root: bool = False, sudo: bool = True, unattended: bool = False, interactive: bool = True) -> Caller:
    return Caller(root=root, sudo=sudo, unattended=unattended, interactive=interactive)


def test_root_is_not_asked_and_needs_no_sudo():
    assert caller(root=True, sudo=False).prefix([INSTALL], refuse_to_answer) == []


def test_ci_is_not_asked_and_sudo_may_not_ask_either():
    assert caller(unattended=True).prefix([INSTALL], refuse_to_answer) == ["sudo", "--non-interactive"]


@pytest.mark.parametrize("answer", ["y", "Y", " yes "])
def test_a_person_who_says_yes_lets_sudo_through(answer):
    assert caller().prefix([INSTALL], lambda _: answer) == ["sudo"]


@pytest.mark.parametrize("answer", ["", "n", "no", "Yess", "q"])
def test_a_person_who_says_anything_else_is_told_the_command_and_nothing_is_installed(answer):
    with pytest.raises(CommandError, match=r"nothing was installed.*as root.*\n    apt-get install thing"):
        caller().prefix([INSTALL], lambda _: answer)


def test_without_anybody_to_ask_the_command_is_printed_and_nothing_is_installed():
    with pytest.raises(CommandError, match=r"nobody to ask.*as root.*\n    apt-get install thing"):
        caller(interactive=False).prefix([INSTALL], refuse_to_answer)


@pytest.mark.parametrize("unattended", [False, True])
def test_without_sudo_nobody_is_asked_and_the_command_is_printed(unattended):
    with pytest.raises(CommandError, match=r"no sudo.*as root.*\n    apt-get install thing"):
        caller(sudo=False, unattended=unattended).prefix([INSTALL], refuse_to_answer)


def test_an_empty_ci_variable_is_not_ci(monkeypatch):
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    assert not Caller.current({"CI": ""}).unattended
    assert Caller.current({"CI": "true"}).unattended


# --- what it installs -----------------------------------------------------------------------------------------------


def test_nothing_is_run_where_nothing_is_missing(apt):
    machine.provide([need(present=True)])
    assert apt == []


def test_what_is_missing_is_named_with_its_reason_before_it_is_installed(apt, capsys, monkeypatch):
    monkeypatch.setattr(machine, "run_logged", lambda *_, **__: apt.append(capsys.readouterr().out))
    with pytest.raises(CommandError, match="still missing: a thing"):
        machine.provide([need(present=False)])
    assert "a thing: to test (packages: thing)" in apt[0]


def test_package_lists_are_fetched_only_where_a_package_is_unknown(apt, monkeypatch):
    for known, first in ((True, "install"), (False, "update")):
        apt.clear()
        monkeypatch.setattr(machine, "_known_to_apt", lambda _, known=known: known)
        with pytest.raises(CommandError, match="still missing"):
            machine.provide([need(present=False)])
        assert apt[0][apt[0].index("apt-get") + 1] == first


def test_somebody_without_sudo_is_told_to_fetch_package_lists_where_they_are_missing(apt, monkeypatch):
    monkeypatch.setattr(machine, "_known_to_apt", lambda _: False)
    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine.shutil, "which", lambda name: None if name == "sudo" else f"/usr/bin/{name}")
    with pytest.raises(CommandError, match=r"apt-get update\n    apt-get install --yes --no-install-recommends thing"):
        machine.provide([need(present=False)])
    assert apt == []


def test_lists_that_are_too_old_are_fetched_and_the_installation_tried_once_more(apt, monkeypatch):
    def run(command, **_):
        apt.append(list(command))
        if len(apt) == 1:
            raise CommandError("404")

    monkeypatch.setattr(machine, "run_logged", run)
    with pytest.raises(CommandError, match="still missing"):
        machine.provide([need(present=False)])
    assert ["update" in command for command in apt] == [False, True, False]


def test_a_machine_without_apt_is_told_what_it_needs(apt, monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda _: None)
    with pytest.raises(CommandError, match="no apt-get"):
        machine.provide([need(present=False)])
    assert apt == []


def test_postgresql_is_never_installed_with_the_others():
    assert plan_commands(["strace", "postgresql"]) == [
        ["apt-get", "install", "--yes", "--no-install-recommends", "strace"],
        ["sh", "scripts/install-postgresql.sh"],
    ]


@pytest.mark.parametrize("before", [None, "start_conf = 'manual'\n"])
@pytest.mark.parametrize("status", [0, 100])
def test_postgresql_gets_no_cluster_and_the_machines_settings_are_put_back(tmp_path, before, status):
    config = tmp_path / "settings" / "createcluster.conf"
    config.parent.mkdir()
    if before is not None:
        config.write_text(before, encoding="utf-8")
    executable(tmp_path / "apt-get", f'cat "{config}" > "{tmp_path}/seen"; exit {status}')
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "install-postgresql.sh", config.parent],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == status
    assert (tmp_path / "seen").read_text(encoding="utf-8") == (before or "") + "create_main_cluster = false\n"
    left = config.read_text(encoding="utf-8") if config.exists() else None
    assert left == before or (before is None and "\ncreate_main_cluster = false" not in f"\n{left}")


def test_chromium_comes_from_apt_on_debian_but_not_on_ubuntu(tmp_path):
    release = tmp_path / "os-release"
    for identity, packaged in (("debian", True), ("ubuntu", False)):
        release.write_text(f"NAME=x\nID={identity}\nID_LIKE=debian\n", encoding="utf-8")
        assert machine.browser_is_packaged(release) is packaged
    assert not machine.browser_is_packaged(tmp_path / "none")


# --- the Python environment -----------------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A folder in place of ``.venv`` and of ``requirements``, and the pip commands that would have run."""
    commands: list[list[str]] = []
    (tmp_path / "requirements").mkdir()
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.setattr(environment, "_STAMPS", tmp_path / "venv" / ".stamps")
    monkeypatch.setattr(environment, "run_logged", lambda command, **_: commands.append(list(command)))
    return tmp_path / "requirements", commands


def write_lock(folder: Path, name: str, *packages: str) -> None:
    text = "".join(f"{item} \\\n    --hash=sha256:{hashlib.sha256(item.encode()).hexdigest()}\n" for item in packages)
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def test_a_lock_is_installed_with_hashes_once_and_again_only_when_it_changes(venv):
    folder, commands = venv
    write_lock(folder, "dev", "a==1")
    environment.install_lock("dev")
    environment.install_lock("dev")
    assert len(commands) == 1
    assert "--require-hashes" in commands[0]
    write_lock(folder, "dev", "a==2")
    environment.install_lock("dev")
    assert len(commands) == 2


def test_an_installation_that_failed_is_tried_again(venv, monkeypatch):
    folder, commands = venv
    write_lock(folder, "dev", "a==1")

    def fail(*_, **__):
        raise CommandError("no network")

    with monkeypatch.context() as broken:
        broken.setattr(environment, "run_logged", fail)
        with pytest.raises(CommandError):
            environment.install_lock("dev")
    environment.install_lock("dev")
    assert len(commands) == 1


def test_the_larger_lock_stands_for_the_smaller_only_while_it_holds_all_of_it(venv):
    folder, commands = venv
    write_lock(folder, "dev", "a==1", "b==1")
    write_lock(folder, "demo", "a==1")
    environment.install_lock("dev")
    environment.install_lock("demo")
    assert len(commands) == 1
    write_lock(folder, "demo", "a==2")
    environment.install_lock("demo")
    assert len(commands) == 2


def test_the_smaller_lock_does_not_stand_for_the_larger(venv):
    folder, commands = venv
    write_lock(folder, "dev", "a==1", "b==1")
    write_lock(folder, "demo", "a==1")
    environment.install_lock("demo")
    environment.install_lock("dev")
    assert len(commands) == 2


# --- what it says ---------------------------------------------------------------------------------------------------


def test_steps_are_numbered(capsys):
    steps = Steps(total=2)
    steps.start("one")
    steps.start("two")
    assert capsys.readouterr().out == "[1/2] one\n[2/2] two\n"


def test_a_command_that_fails_shows_its_end_and_where_the_rest_is(capsys):
    with pytest.raises(CommandError, match=r"\.cache/logs/test-setup\.log"):
        run_logged(["sh", "-c", "seq 100; exit 3"], log_name="test-setup.log", show=lambda _: None)
    shown = capsys.readouterr().out.split()
    assert "100" in shown
    assert "50" not in shown
    assert (ROOT / ".cache" / "logs" / "test-setup.log").read_text(encoding="utf-8").startswith("1\n2\n")


def test_a_program_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(CommandError, match="no program 'no-such-program'"):
        run_logged(["no-such-program"], log_name="test-setup.log", show=lambda _: None)


def test_without_go_the_tests_are_told_what_stands_in_for_versitygw(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(versitygw, "BINARY", tmp_path / "versitygw")
    monkeypatch.setattr(versitygw.shutil, "which", lambda _: None)
    versitygw.provide()
    assert "moto" in capsys.readouterr().out


def test_versitygw_is_pinned_and_its_build_may_not_fetch_another_go(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(versitygw, "BINARY", tmp_path / "versitygw")
    monkeypatch.setattr(versitygw.shutil, "which", lambda _: "/usr/bin/go")
    monkeypatch.setattr(versitygw, "run_logged", lambda command, **rest: seen.update(command=command, **rest))
    versitygw.provide()
    assert seen["command"][-1] == f"{versitygw.MODULE}@{versitygw.VERSION}"
    assert seen["environment"]["GOTOOLCHAIN"] == "local"
    assert seen["environment"]["GOBIN"] == str(tmp_path)


# --- Python itself --------------------------------------------------------------------------------------------------


def run_python(python: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", ROOT / "scripts" / "python.sh", *arguments],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_without_python_is_told_what_to_install():
    done = run_python("no-such-python")
    assert done.returncode == 1
    assert "no 'no-such-python'" in done.stderr
    assert "apt-get install python3" in done.stderr


def test_an_old_python_is_refused_with_its_version(tmp_path):
    old = executable(tmp_path / "python3.9", '[ "$1" = -V ] && echo Python 3.9.2\nexit 1')
    done = run_python(old, "-c", "print('never')")
    assert done.returncode == 1
    assert "3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert done.stdout == ""


def test_a_new_enough_python_runs_what_it_is_given():
    done = run_python("python3", "-c", "import sys; print(*sys.argv[1:])", "a b", "c")
    assert (done.returncode, done.stdout) == (0, "a b c\n")


# --- secrets of the compose file ------------------------------------------------------------------------------------


def test_a_container_reads_its_secrets_from_files_and_hides_the_files_names(tmp_path):
    (tmp_path / "password").write_text("hunter2\n", encoding="utf-8")
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "container-entrypoint.sh", "env"],
        env={"PATH": os.environ["PATH"], "PGPASSWORD_FILE": str(tmp_path / "password")},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "PGPASSWORD=hunter2" in lines
    assert not [line for line in lines if line.startswith(("PGPASSWORD_FILE", "AWS_"))]


def test_a_container_does_not_start_without_a_secret_that_it_was_promised(tmp_path):
    done = subprocess.run(
        ["sh", ROOT / "scripts" / "container-entrypoint.sh", "echo", "started"],
        env={"PATH": os.environ["PATH"], "PGPASSWORD_FILE": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "started" not in done.stdout


def test_compose_secrets_are_random_private_and_made_once(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "compose-secrets.sh").write_bytes((ROOT / "scripts" / "compose-secrets.sh").read_bytes())
    made = []
    for _ in range(2):
        subprocess.run(["sh", scripts / "compose-secrets.sh"], capture_output=True, check=True)
        made.append({path.name: path.read_text(encoding="ascii") for path in (tmp_path / "secrets").iterdir()})
    assert made[0] == made[1]
    assert len(set(made[0].values())) == len(made[0]) == 4
    assert all(len(value) == 64 for value in made[0].values())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
