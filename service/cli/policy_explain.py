"""``tallystick policy explain``: rule by rule, why a decision is what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import msgspec

from ledger.errors import ConfigError, NotFoundError, VerificationError
from ledger.notes import decode_base64
from policies.bundles import Bundle, parse_archive
from policies.explaining import Explanation, Holds, RuleExplanation, concerns
from policies.model import DecisionRequest, decode_request
from policies.testing import Case, given_request, read_cases, read_given
from service.cli.client import ServiceClient, service_options
from service.cli.options import DECISION_ID
from service.cli.output import counted, echo_json, json_option, say, with_exit_codes

__all__ = ["explain"]


@click.command(short_help="Say rule by rule why a decision is what it is.")
@click.argument(
    "directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[DIRECTORY]"
)
@click.option("--case", "case_name", metavar="NAME", help="The request of this test case of the bundle.")
@click.option("--given", metavar="YAML", help="A request, in the members of a test case's `given`.")
@click.option("--decision", "decision_id", type=DECISION_ID, help="A recorded request; its own bundle, or DIRECTORY.")
@click.option("--purpose", help="Why a recorded request is opened; recorded.")
@click.option("--all", "everything", is_flag=True, help="Also the rules that are about other calls.")
@service_options
@json_option
@with_exit_codes
def explain(
    directory: Path | None,
    case_name: str | None,
    given: str | None,
    decision_id: str | None,
    purpose: str | None,
    url: str,
    token: str | None,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    """Say why a bundle decides a request so: each rule about that call, condition by condition.

    The bundle is that of DIRECTORY, or the one that decided then. What is printed quotes the policy and no value of the
    request.
    """
    from policies.directories import read_bundle_directory
    from service.wiring.engines import explainer_of

    if sum(option is not None for option in (case_name, given, decision_id)) != 1:
        raise ConfigError("name one request: --case, --given or --decision")
    bundle = None if directory is None else read_bundle_directory(directory)
    if decision_id is not None:
        request, bundle = _recorded(ServiceClient(url, token), decision_id, purpose, bundle)
    elif bundle is None:
        raise ConfigError("name the bundle's DIRECTORY")
    elif given is not None:
        request = given_request(bundle, read_given(given))
    else:
        request = given_request(bundle, _case(bundle, case_name or "").given)
    explainer = explainer_of(bundle.manifest.engine)
    if explainer is None:
        raise NotFoundError(f"decisions of the engine {bundle.manifest.engine} cannot be explained here")
    explanation = explainer(bundle, request)
    rules = [rule for rule in explanation.rules if everything or concerns(rule)]
    if as_json:
        decision = msgspec.to_builtins(explanation.decision)
        echo_json({"decision": decision, "rules": [asdict(rule) for rule in rules]})
    else:
        _tell_explanation(explanation, rules)


def _recorded(
    client: ServiceClient, decision_id: str, purpose: str | None, bundle: Bundle | None
) -> tuple[DecisionRequest, Bundle]:
    """Fetch a recorded request, and the bundle that decided it unless another one was named."""
    if purpose is None:
        raise ConfigError("a recorded request is opened for a --purpose, which is recorded")
    if bundle is None:
        body = client.get(f"/v1/decisions/{decision_id}")["record"]["body"]
        if body.get("bundle") is None:
            raise NotFoundError(f"no bundle decided {decision_id}: the enforcement point refused it ({body['reason']})")
        revision = body["bundle"]["revision"]
        bundle = parse_archive(client.request("GET", f"/v1/bundles/{revision}").content)
        if bundle.revision != revision:
            raise VerificationError(f"the service handed out {bundle.revision} for the bundle {revision}")
    answer = client.post(f"/v1/decisions/{decision_id}/openings", {"purpose": purpose, "fields": ["request"]})
    (opening,) = answer["openings"]
    return decode_request(decode_base64(opening["payload"])), bundle


def _case(bundle: Bundle, name: str) -> Case:
    cases = read_cases(bundle)
    found = [case for case in cases if case.name == name] or [case for case in cases if name in case.name]
    if len(found) != 1:
        raise ConfigError(f"{counted(len(found), 'cases')} of the bundle are named like {name[:100]!a}; name one")
    return found[0]


_MARKS: Final = {Holds.YES: "yes", Holds.NO: "NO", Holds.FAILED: "FAILED", Holds.NOT_REACHED: "-"}


def _tell_explanation(explanation: Explanation, rules: Sequence[RuleExplanation]) -> None:
    decision = explanation.decision
    say(f"{decision.effect} ({decision.reason}) by {', '.join(decision.rules) or 'no rule'}")
    if decision.failed_condition:
        say(f"  stood against it first: {decision.failed_condition}")
    if decision.drift:
        say(f"  outside the tool's description: {', '.join(decision.drift)}")
    if decision.detail:
        say(f"  {decision.detail}")
    if not explanation.rules:
        say("  no rule was asked")
    for rule in rules:
        say(f"{rule.effect} {rule.name} ({rule.place}): {'applies' if rule.applies else 'does not apply'}")
        for condition in rule.conditions:
            # An `unless` that holds is what keeps its rule from applying.
            say(f"  {_MARKS[condition.holds]:6} {condition.kind:9} {condition.text}")
    if (left := len(explanation.rules) - len(rules)) > 0:
        say(f"{counted(left, 'rules')} about other calls; --all shows them")
