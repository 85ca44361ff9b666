"""``tallystick inspect``: findings by place and rule, never by value; exit statuses; rules of one's own."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from service.cli.main import cli

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9" * 2


def run(*arguments, piped=None):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)], input=piped)


def test_findings_are_told_by_place_and_rule_and_end_with_status_1(tmp_path):
    file = tmp_path / "result.json"
    file.write_text(json.dumps({"content": [{"type": "text", "text": f"key {TOKEN}"}]}))
    done = run(file)
    assert done.exit_code == 1
    assert "/content/0/text  secret/github_token" in done.output
    assert TOKEN not in done.output


def test_a_clean_text_that_is_piped_in_ends_with_status_0():
    done = run("-", piped=b"The trams of Lisbon are full in October.\n")
    assert done.exit_code == 0
    assert done.output == "0 findings; everything was looked at\n"


def test_json_for_programs_has_the_findings_and_the_digest_of_the_rules():
    said = json.loads(run("-", "--json", piped=f"a\nb {TOKEN}".encode()).output)
    assert said["complete"] is True
    assert said["count"] == 1
    assert len(said["inspector"]) == 64
    assert said["findings"] == [
        {"kind": "secret", "rule": "github_token", "place": "line 2", "start": 4, "end": 4 + len(TOKEN)}
    ]


def test_what_was_not_looked_at_wholly_has_a_status_of_its_own():
    done = run("-", piped=b"x\n" * (5 << 20))
    assert done.exit_code == 4
    assert "not everything was looked at" in done.output


def test_a_kind_can_be_chosen_and_one_that_there_is_not_is_refused():
    assert run("-", "--kind", "personal", piped=TOKEN.encode()).exit_code == 0
    done = run("-", "--kind", "weather", piped=b"")
    assert done.exit_code == 64
    assert "no kind of finding" in done.output


def test_rules_of_ones_own_are_added(tmp_path):
    (tmp_path / "own.yar").write_text(
        'rule badge { meta: kind = "secret" strings: $a = /BADGE-[0-9]{4}/ condition: $a }'
    )
    done = run("-", "--rules", tmp_path, piped=b"BADGE-1234")
    assert done.exit_code == 1
    assert "secret/badge" in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule x { condition: }", "own.yar"),
        ("rule x { condition: true }", "meta kind"),
        ('rule x { meta: kind = "intent" condition: true }', "meta topic"),
        ('rule x { meta: kind = "secret" view = "sideways" condition: true }', "meta view"),
        ('rule github_token { meta: kind = "secret" condition: true }', "stands in secrets.yar too"),
        ('include "/etc/passwd"', "own.yar"),
        ("", "holds no rule"),
        ('rule _near { meta: near = "(" condition: false } rule x { meta: kind = "secret" condition: true }', "_near"),
        ('rule _near { meta: near = "a*" condition: false } rule x { meta: kind = "secret" condition: true }', "empty"),
    ],
)
def test_a_bad_rule_is_one_line_and_status_64(tmp_path, text, said):
    (tmp_path / "own.yar").write_text(text)
    done = run("-", "--rules", tmp_path, piped=b"")
    assert done.exit_code == 64
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    done = run(tmp_path / "missing")
    assert done.exit_code == 64
    assert "cannot be read" in done.output
