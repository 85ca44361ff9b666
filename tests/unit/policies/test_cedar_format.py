"""Cedar's layout: the same policies and comments, or nothing."""

from __future__ import annotations

import cedarpy
import pytest

from ledger.errors import PolicySyntaxError
from policies.engines.cedar_format import format_cedar
from policies.engines.cedar_text import comments

UGLY = (
    '// why\n@id("a")permit(principal in Role::"x",action,resource) // who\nwhen{context.time.hour>3&&true}; // end\n'
)


def test_a_file_is_laid_out_with_its_policies_and_comments_kept():
    formatted = format_cedar("p.cedar", UGLY)
    assert formatted != UGLY
    assert cedarpy.policies_to_pst(formatted) == cedarpy.policies_to_pst(UGLY)
    assert comments(formatted) == ("// why", "// who", "// end")


def test_a_layout_is_stable():
    formatted = format_cedar("p.cedar", UGLY)
    assert format_cedar("p.cedar", formatted) == formatted


def test_what_looks_like_a_comment_inside_a_string_is_none():
    text = '@id("a") permit(principal, action, resource) when { context.time.zone == "//x" };'
    assert comments(text) == ()
    assert "//x" in format_cedar("p.cedar", text)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (lambda text: text.replace("// who\n", "\n"), "a lost comment"),
        (lambda text: text.replace("hour > 3", "hour > 4"), "another policy"),
        (lambda text: text.replace("// why", "// why not"), "another comment"),
    ],
)
def test_a_formatter_that_changes_more_than_the_layout_is_not_believed(monkeypatch, changed, what):
    real = cedarpy.format_policies
    monkeypatch.setattr(cedarpy, "format_policies", lambda *arguments: changed(real(*arguments)))
    with pytest.raises(PolicySyntaxError, match="left as it is"):
        format_cedar("p.cedar", UGLY)


@pytest.mark.parametrize("text", ["permit(", "permit(principal, action);", "(" * 2000 + ";", "\u202epermit"])
def test_what_is_no_policy_is_refused_with_its_file(text):
    with pytest.raises(PolicySyntaxError, match=r"^p\.cedar"):
        format_cedar("p.cedar", text)
