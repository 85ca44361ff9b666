"""Compare our Rego engine's functions with a stock OPA's: ``python -m tests.interop.rego_functions OPA_PROGRAM``.

Each expression is evaluated by both. Where they differ, `DIFFERENT` must say so, and nothing in it may have become
equal: the differences are those that docs/rego.md tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from regorus.regorus import Engine

from policies.engines.rego_builtins import ARITIES, RecordedTime, bound_functions

SAME = r"""
is_array([1])
is_boolean(false)
is_null(null)
is_object({})
is_set({1})
is_string(1)
json.marshal({"b": [1, "x", null], "a": true})
upper("aä")
graph.reachable_paths({"a": ["b"], "b": []}, ["a"])
abs(-2.5)
array.concat([1],[2])
array.reverse([1,2])
array.slice([1,2,3],1,5)
base64.decode("YQ==")
base64.encode("é")
base64.is_valid("a")
base64url.decode("YQ")
base64url.encode("a?")
base64url.encode_no_pad("a")
bits.and(6,3)
bits.lsh(1,5)
bits.negate(5)
bits.or(6,3)
bits.rsh(8,1)
bits.xor(6,3)
ceil(1.2)
concat(",",["a","b"])
concat(",",{"b","a"})
contains("abc","b")
count("é")
count({1,1})
endswith("abc","c")
floor(-1.2)
format_int(255,16)
glob.match("*.a.com",[],"x.a.com")
glob.match("*.com",["."],"x.a.com")
glob.quote_meta("*")
graph.reachable({"a":["b"],"b":[]},["a"])
hex.encode("a")
hex.decode("61")
indexof("abc","c")
indexof_n("abca","a")
intersection({{1,2},{2}})
is_number(1)
json.filter({"a":{"b":1,"c":2}},["a/b"])
json.is_valid("{}")
json.patch({"a":1},[{"op":"add","path":"/b","value":2}])
json.remove({"a":{"b":1}},["a/b"])
json.unmarshal("[1, 2.0, 1e2]")
lower("ÄB")
max([1,3,2])
max({"a","b"})
min([])
net.cidr_contains("10.0.0.0/8","10.1.0.0/16")
net.cidr_is_valid("10.0.0.0/33")
numbers.range(3,1)
numbers.range_step(1,10,3)
object.filter({"a":1,"b":2},["a"])
object.get({"a":{"b":1}},["a","b"],0)
object.get({"a":1},"z",0)
object.keys({"a":1})
object.remove({"a":1,"b":2},{"a"})
object.subset({"a":1,"b":2},{"a":1})
object.union({"a":{"x":1}},{"a":{"y":2}})
object.union_n([{"a":1},{"a":2}])
product([2,3.5])
regex.find_all_string_submatch_n("a(.)","abac",-1)
regex.find_n("a.","abac",1)
regex.is_valid("(")
regex.match("^a.c$","abc")
regex.replace("abc","b","x$0")
regex.split(",","a,b")
regex.template_match("urn:{.*}","urn:x","{","}")
replace("aaa","a","b")
round(2.5)
round(-2.5)
semver.compare("1.2.3","1.10.0")
semver.is_valid("1.0")
sort([3,"a",1,null,true])
sort({2,1})
split("a.b.",".")
sprintf("%v",[1.0])
startswith("abc","a")
strings.any_prefix_match(["abc"],["a"])
strings.any_suffix_match(["abc"],["c"])
strings.count("aaa","a")
strings.replace_n({"a":"b"},"aa")
strings.reverse("añb")
substring("abc",1,-1)
substring("äbc",1,1)
sum([1,2.5])
time.add_date(0,1,1,1)
time.clock([0,"Europe/Berlin"])
time.date(0)
time.diff(0,100000000000)
time.format(0)
time.format([0,"Europe/Berlin"])
time.parse_duration_ns("1h5m")
time.parse_ns("2006-01-02","2020-01-01")
time.parse_rfc3339_ns("2020-01-01T00:00:00+02:00")
time.weekday(0)
to_number("5")
to_number("5e2")
to_number(null)
to_number(true)
trim("xax","x")
trim_left("xax","x")
trim_prefix("xax","x")
trim_right("xax","x")
trim_suffix("xax","x")
trim_space(" a ")
type_name({1})
union({{1},{2}})
units.parse("10K")
units.parse("1.5Mi")
units.parse_bytes("10KB")
urlquery.decode("a%20b")
urlquery.encode("a b")
urlquery.decode_object("a=1&a=2")
urlquery.encode_object({"a":"b"})
uuid.parse("00000000-0000-4000-8000-000000000000")
1/3
7%3
5/2
1e2
{1,2}-{1}
{1}&{1,2}
[1]<[2]
"a"<"b"
{"a":1}<{"b":0}
[1]<{1}
null<false
1<"a"
["a"][_]
{"a":1}["a"]
1.0==1
"10"<"9"
9007199254740993+1
9223372036854775807+1
2-3
{1}|{2}
{y | walk({"a":[1]},[_,y])}
sprintf("%d %v %s %q %x",[1,{"a":1},"s","q",255])
"""

DIFFERENT = r"""
0.1+0.2
3*0.1
json.marshal([1.0])
sprintf("%5.2f",[1.5])
sum([0.1,0.2])
upper("ß")
{1}<{"a":1}
"""

UNDEFINED = "<undefined>"


def ours(expression: str) -> object:
    """What our engine says; a function that fails is undefined in OPA."""
    engine = Engine()
    for name, arguments, function in bound_functions(RecordedTime()):
        engine.add_extension(name, arguments, function)
    try:
        engine.add_policy("p.rego", f"package p\nvalue := {expression}")
        return json.loads(engine.eval_rule_as_json("data.p.value"))
    except RuntimeError:
        return UNDEFINED


def theirs(program: str, expressions: list[str]) -> list[object]:
    """What OPA says of each."""
    text = "\n".join(["package p", *(f"value{n} := {expression}" for n, expression in enumerate(expressions))])
    with TemporaryDirectory() as folder:
        Path(folder, "p.rego").write_text(text)
        command = [program, "eval", "--data", f"{folder}/p.rego", "data.p"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(answer.stdout)
    if "result" not in result:
        raise SystemExit(f"FAIL OPA refuses the expressions: {result['errors'][0]['message']}")
    values = result["result"][0]["expressions"][0]["value"]
    return [values.get(f"value{n}", UNDEFINED) for n in range(len(expressions))]


def main(program: str) -> None:
    """Compare all of them.

    Raises:
        SystemExit: The two differ where they are said to agree, or agree where they are said to differ.
    """
    same, different = SAME.split("\n")[1:-1], DIFFERENT.split("\n")[1:-1]
    untried = {name for name in ARITIES if not any(f"{name}(" in expression for expression in same)}
    wrong = [
        f"{expression}: ours {mine!r}, OPA's {other!r}"
        for expression, other in zip([*same, *different], theirs(program, [*same, *different]), strict=True)
        if ((mine := ours(expression)) == other) != (expression in same)
    ]
    for line in wrong:
        print(f"FAIL {line}")
    if wrong:
        raise SystemExit(1)
    print(f"ok   {len(same)} expressions mean the same in OPA, {len(different)} differ as documented")
    print(f"ok   not compared: {', '.join(sorted(untried))}")


if __name__ == "__main__":
    main(sys.argv[1])
