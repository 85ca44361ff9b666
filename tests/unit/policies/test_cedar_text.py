"""The guards on Cedar text: what could kill or stall the parser never reaches it."""

from __future__ import annotations

import threading

import cedarpy
import pytest

from ledger.errors import PolicySyntaxError
from policies.engines.cedar_text import (
    MAX_EXPANDED_SCHEMA,
    MAX_NESTING,
    MAX_OPERATORS,
    MAX_TYPES,
    check_schema_text,
    split_policies,
)


def when(expression: str) -> str:
    return f"permit(principal, action, resource) when {{ {expression} }};"


def refused(text: str, message: str) -> None:
    with pytest.raises(PolicySyntaxError, match=message):
        split_policies("p.cedar", text)


# Each of these, a few thousand long, ends the process with a segmentation fault in cedarpy 4.12.2.
KILLERS = {
    "parentheses": lambda n: "(" * n + "true" + ")" * n,
    "sets": lambda n: "[" * n + "1" + "]" * n + ".isEmpty()",
    "records": lambda n: "{a:" * n + "1" + "}" * n + " == {a:1}",
    "and": lambda n: " && ".join(["true"] * n),
    "or": lambda n: " || ".join(["true"] * n),
    "plus": lambda n: " + ".join(["1"] * n) + " == 1",
    "minus": lambda n: " - ".join(["1"] * n) + " == 1",
    "times": lambda n: " * ".join(["1"] * n) + " == 1",
    "else if": lambda n: "if true then true else " * n + "true",
    "if if": lambda n: "if " * n + "true" + " then true else true" * n,
    "then if": lambda n: "if true then " * n + "true" + " else true" * n,
    "attributes": lambda n: "context" + ".a" * n,
    "indexes": lambda n: "context" + '["a"]' * n,
    "has": lambda n: "context has " + ".".join(["a"] * n),
    "calls": lambda n: "context.a" + ".contains(1)" * n,
    "is": lambda n: "principal is A" + " && principal is A" * n,
}


@pytest.mark.parametrize("kind", KILLERS)
def test_expression_that_would_kill_the_parser_is_refused_before_it(kind):
    refused(when(KILLERS[kind](3000)), r"p\.cedar:1: (nested more than|a policy with more than)")


@pytest.mark.parametrize("kind", KILLERS)
def test_expression_at_the_limits_passes_the_guard_and_does_not_kill_the_parser(kind):
    """In a thread, as in the service, where the stack is the smaller one; an error of the parser is an answer."""
    size = MAX_NESTING - 2 if kind in {"parentheses", "sets", "records"} else MAX_OPERATORS // 2
    text = when(KILLERS[kind](size))
    assert len(split_policies("p.cedar", text)) == 1
    answers = []

    def parse() -> None:
        try:
            answers.append(cedarpy.PolicySet.from_str(text))
        except ValueError as error:
            answers.append(error)

    thread = threading.Thread(target=parse)
    thread.start()
    thread.join()
    assert len(answers) == 1


def test_worst_mixture_at_the_limits_does_not_kill_the_parser():
    inner = " && ".join(["true"] * (MAX_OPERATORS // 3)) + " && context" + ".a" * (MAX_OPERATORS // 3)
    text = when("(" * (MAX_NESTING - 2) + f"if true then {inner} else true" + ")" * (MAX_NESTING - 2))
    assert len(split_policies("p.cedar", text)) == 1
    assert len(cedarpy.PolicySet.from_str(text)) == 1


def test_limits_count_for_each_policy_and_not_for_the_file():
    text = "\n".join([when(" && ".join(["true"] * 200))] * 10)
    assert len(split_policies("p.cedar", text)) == 10


def test_long_flat_lists_are_no_nesting():
    assert len(split_policies("p.cedar", when("[" + ",".join(["1"] * 10_000) + "].contains(1)"))) == 1


def test_brackets_in_strings_and_comments_do_not_count():
    many = "(" * 1000
    text = f'// {many}\n@id("{many}")\n' + when(f'"{many}\\"{many}" == "" // {many}\n')
    assert len(split_policies("p.cedar", text)) == 1


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_comment_ends_where_cedar_ends_it(newline):
    """Cedar ends a comment at a carriage return as well; a guard that did not would be talked past."""
    refused(f"// {newline}" + when(KILLERS["parentheses"](1000)), "nested more than")


def test_string_does_not_hide_what_follows_it():
    refused('@id("\\\\")' + when(KILLERS["parentheses"](1000)), "nested more than")
    refused('@id("\\\n")' + when("true"), "no token of Cedar starts here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('permit(principal, action, resource) when { "open };', r"p\.cedar:1: no token"),
        ("permit(principal, action, resource)", r"p\.cedar:1: a policy that does not end"),
        ("permit(principal, action, resource;", r"p\.cedar:1: a policy that does not end"),
        ("\n\npermit(principal, action, resource));", r"p\.cedar:3: a bracket that closes none"),
        ("permit(principal, action, resource];", r"p\.cedar:1: a bracket that closes none"),
        ("permit\u00a0(principal, action, resource);", "no token"),
        ("permit(principal, action, resource) when { 1 % 2 == 1 };", "no token"),
        ("permit(principal, action, resource) when { 'a' == 'a' };", "no token"),
        ("#!cedar\n", r"p\.cedar:1: no token"),
        (";", None),
    ],
)
def test_what_is_no_text_of_cedar_is_refused_with_its_line(text, message):
    if message is None:
        assert [item.text for item in split_policies("p.cedar", text)] == [";"]
    else:
        refused(text, message)


@pytest.mark.parametrize("char", ["\u202e", "\u2066", "\u200b", "\ufeff", "\u00ad", "\ue000", "\x85"])
def test_text_that_looks_other_than_it_is_is_refused(char):
    refused(f'\n@id("a{char}b")', f"p.cedar:2: the invisible character U\\+{ord(char):04X}")
    with pytest.raises(PolicySyntaxError, match="invisible character"):
        check_schema_text("s", f"// {char}")


def test_policies_are_told_apart_with_their_lines():
    text = '// first\n\n@id("a") permit(principal, action, resource);\n@id("b")\nforbid(principal, action, resource);'
    assert [(item.line, item.text[:8]) for item in split_policies("p.cedar", text)] == [
        (3, '@id("a")'),
        (4, '@id("b")'),
    ]


def doubling(count: int) -> str:
    types = "".join(f"type T{n} = {{ a: T{n + 1}, b: T{n + 1} }};" for n in range(count))
    return f"{types} type T{count} = Long; entity A {{ x: T0 }};"


def test_schema_that_doubles_with_each_type_is_refused():
    """Forty of these types would keep the parser busy for hours."""
    check_schema_text("s", doubling(10))
    for count in (20, 40, 190):
        with pytest.raises(PolicySyntaxError, match=f"more than {MAX_EXPANDED_SCHEMA} tokens"):
            check_schema_text("s", doubling(count))


def test_schema_that_doubles_under_namespaces_is_refused():
    types = "".join(f"type T{n} = {{ a: N::T{n + 1}, b: N::T{n + 1} }};" for n in range(40))
    with pytest.raises(PolicySyntaxError, match="once its types are written out"):
        check_schema_text("s", f"namespace N {{ {types} type T40 = Long; }}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entity A { x: " + "{ a: " * 40 + "Long" + " }" * 40 + " };", "nested more than"),
        ("entity A { x: " + "Set<" * 40 + "Long" + ">" * 40 + " };", "nested more than"),
        ("type A = { a: B }; type B = { a: A };", "contains itself"),
        ("type A = Set<A>;", "contains itself"),
        ("".join(f"type T{n} = Long;" for n in range(MAX_TYPES + 1)), f"at most {MAX_TYPES} types"),
        ("entity A { x: Long )", "closes none"),
        ('entity A { "x: Long }', "no token"),
    ],
)
def test_schema_beyond_a_limit_is_refused(text, message):
    with pytest.raises(PolicySyntaxError, match=message):
        check_schema_text("s", text)


def test_attribute_that_is_named_like_its_type_is_no_cycle():
    check_schema_text("s", "type identity = { identity?: String, user: String }; entity A { identity: identity };")
