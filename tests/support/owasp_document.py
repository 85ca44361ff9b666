"""docs/owasp.md: what stands against each risk of two OWASP lists, which tests show it, what the ledger keeps of it.

``python -m tests.support.owasp_document > docs/owasp.md``. A test compares the page with what this makes, and looks
every test up. Risks are named by their numbers and in our own words.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass

__all__ = ["AGENTIC", "MCP", "Risk", "document"]


@dataclass(frozen=True, kw_only=True)
class Risk:
    """One risk of a list.

    Attributes:
        number: Its number in the list.
        words: What it is, in our words.
        defence: What stands against it.
        tests: Tests that show so, as ``file::test``.
        records: Types of the records that the ledger holds afterwards.
        evidence: What is in them; names in backticks are members of these records, or values that the code writes.
        open: What is not defended; never empty.
    """

    number: str
    words: str
    defence: str
    tests: tuple[str, ...]
    records: tuple[str, ...]
    evidence: str
    open: str


_NUMBERS, _WORDS, _TOOLS = "test_attacks_on_numbers.py", "test_attacks_by_words.py", "test_attacks_on_tools.py"

MCP = (
    Risk(
        number="MCP01:2025",
        words="Tokens and secrets that lie where others find them",
        defence="Clients' tokens end at the gateway, which has its own for each server; secrets in calls are "
        "facts for "
        "policy, and in answers are redacted, in streams too; records and logs hold none.",
        tests=(
            f"{_WORDS}::test_a_secret_that_leaks_in_a_result",
            "test_upstream_tokens.py::test_a_server_sees_the_gateways_token_and_nothing_of_the_clients",
            "test_gateway_inspection.py::test_a_secret_that_is_told_in_pieces_of_a_stream_is_redacted_in_each_of_them",
            "test_gateway_inspection.py::test_no_value_that_was_found_stands_in_a_record_or_a_log",
        ),
        records=("decision", "outcome"),
        evidence="what was found, as `inspection` (kind and rule), and what was `redacted`; the answer as the "
        "server sent it, in the vault",
        open="Secrets of a form that no rule knows; what an agent keeps in its own memory.",
    ),
    Risk(
        number="MCP02:2025",
        words="Rights that grow, and are not taken back",
        defence="What no rule permits is denied and not listed; what is granted and not used is listed for each "
        "agent; "
        "bundles are reviewed by a second person, and replays show what a change loosens.",
        tests=(
            "test_gateway_lists.py::test_each_list_shows_what_some_arguments_would_allow_and_nothing_else",
            "test_inventory.py::test_reachable_is_what_the_policy_says_and_used_is_what_the_log_says",
            "test_inventory.py::test_the_worklist_begins_with_what_is_granted_and_unused",
            "test_people.py::test_nobody_approves_what_his_own_machine_or_other_login_published",
        ),
        records=("decision", "bundle"),
        evidence="the rules that spoke, the `bundle` that decided; of each bundle who reviewed it and what it "
        "`loosened`",
        open="Rights that a server gives by itself to the one credential that the gateway has there.",
    ),
    Risk(
        number="MCP03:2025",
        words="Tools whose definitions lie, or change",
        defence="Definitions are pinned; a changed, look-alike, renamed or shadowing one is neither listed nor called "
        "until a person has seen the difference; descriptions are inspected as answers are.",
        tests=(
            f"{_TOOLS}::test_rug_pull",
            f"{_TOOLS}::test_shadowed_tool",
            "test_tool_pins.py::test_a_tool_that_changed_over_night_is_neither_listed_nor_called_under_any_spelling",
            "test_tool_spellings.py::test_a_quarantined_tool_is_refused_and_hidden_under_every_spelling",
            "test_gateway_inspection.py::test_an_order_in_a_tools_description_is_redacted_from_the_list",
        ),
        records=("tool", "decision"),
        evidence="`quarantined` with its reasons, what the change brings in and both digests; `tool_digest` and "
        "`tool_state` of each call",
        open="A tool that is hostile from its first listing in words that no rule knows, with `first_use`; what a "
        "tool "
        "does behind a definition that stands.",
    ),
    Risk(
        number="MCP04:2025",
        words="Servers and packages that are not what their makers made",
        defence="Signed manifests name each tool's definition; the server's certificate and name are pinned; our own "
        "dependencies are locked by hash.",
        tests=(
            "test_tools_command.py::test_a_manifest_that_was_touched_stops_the_gateway",
            "test_tools_command.py::test_keys_of_one_algorithm_alone_are_not_enough",
            "test_gateway_certificates.py::test_a_server_that_is_not_the_pinned_one_is_sent_nothing",
        ),
        records=("tool", "decision"),
        evidence="`vouched` for and `unlisted`; how the server was proven, among the TLS facts of each decision",
        open="The server's code: whoever changes it and leaves its definitions is not noticed by them.",
    ),
    Risk(
        number="MCP05:2025",
        words="Arguments that become commands",
        defence="Paths have one plain spelling and stay in their folders; parameters are bounded by policy; intents "
        "off the agent's role (files, execution) are findings; what runs commands or cannot be undone is held for "
        "people, who see all of it.",
        tests=(
            "test_attacks_by_arguments.py::test_a_path_that_leads_out_of_its_folder",
            "test_attacks_by_arguments.py::test_a_name_that_is_a_command",
            "test_inspector.py::test_a_path_outside_the_declared_ones_is_a_finding",
            "test_gateway_approvals.py::test_an_irreversible_tool_is_held_although_the_policy_merely_permits_it",
        ),
        records=("decision", "approval"),
        evidence="the rule and its `failed_condition`; `inspection`; who was shown what would run, and said what",
        open="No rule recognises every shell or query language: a server that executes its arguments needs bounds that "
        "are written for its parameters, or people before it. A person may let pass what he does not understand.",
    ),
    Risk(
        number="MCP06:2025",
        words="Content that tells the agent what to do",
        defence="Resources, results and prompts are inspected before they are released; after untrusted content, "
        "writes "
        "wait for a person.",
        tests=(
            f"{_WORDS}::test_an_instruction_in_a_resource",
            f"{_WORDS}::test_confused_deputy",
            "test_gateway_inspection.py::test_a_blocked_result_is_an_error_and_its_outcome_says_why",
            "test_inspector.py::test_an_order_in_disguise_is_found",
        ),
        records=("decision", "outcome", "approval"),
        evidence="`failed` with `result_blocked` and the findings; who looked at the call that followed, and what "
        "was said",
        open="Orders that no rule knows: recall on attacks is measured and is not whole ([detection](detection.md)). "
        "The second line is policy by tags, which does not read.",
    ),
    Risk(
        number="MCP07:2025",
        words="Callers who are not who they say",
        defence="Tokens bound to the gateway's audience, certificates, or both; what a client says of itself grants "
        "nothing; second factor and hours are facts.",
        tests=(
            f"{_TOOLS}::test_stolen_token_at_three_in_the_morning",
            "test_gateway_identity.py::test_tokens_that_do_not_count_never_reach_the_server_and_are_told_apart_by_nobody",
            "test_gateway_identity.py::test_what_a_client_says_of_itself_grants_nothing",
            "test_gateway_refusals.py::test_a_caller_without_a_valid_token_is_refused_and_recorded_once",
        ),
        records=("decision",),
        evidence="each refused attempt; `authn` and `mfa` of each call, its hour and its network",
        open="A stolen token in its own hours, from its own network, doing its usual work.",
    ),
    Risk(
        number="MCP08:2025",
        words="Nobody can say what happened",
        defence="Each decision is durable in a Merkle log before the call goes on; gaps are counted; sessions are "
        "told "
        "in order; alerts go out signed.",
        tests=(
            "test_denial_is_durable_first.py",
            "test_session_ends.py::test_a_call_that_somebody_withheld_is_missing_for_api_command_and_dashboard",
            "test_narrative.py::test_a_call_says_who_decided_what_was_found_and_which_tool_it_was",
            "test_webhooks.py::test_a_containment_is_told_signed_and_with_no_words_of_a_person",
        ),
        records=("decision", "outcome", "session_end", "dropped"),
        evidence="all of it, with inclusion proofs, checkpoints and each enforcer's own numbers",
        open="What does not pass a gateway.",
    ),
    Risk(
        number="MCP09:2025",
        words="Servers that nobody registered",
        defence="Discovery on given hosts and in clients' configurations, compared with the lists; an inventory that "
        "shows the unowned first.",
        tests=(
            "test_discovery.py::test_the_laboratory_is_told_apart_as_the_document_says",
            "test_discovery.py::test_a_shadow_server_ends_the_command_with_status_1_and_a_registered_one_with_0",
            "test_discoveries.py::test_a_scan_is_recorded_with_all_that_it_found_and_no_leaf_says_where_that_is",
            "test_inventory.py::test_servers_are_listed_unowned_first_with_what_lists_and_calls_say",
        ),
        records=("discovery", "inventory"),
        evidence="each scan with what it found, and who dismissed what; lists of servers with their owners, as each "
        "gateway has them",
        open="Hosts and machines that discovery was not given; calls to such a server are not stopped, but found.",
    ),
    Risk(
        number="MCP10:2025",
        words="Context that reaches whom it should not",
        defence="After a sensitive read nothing goes out in the session; other tenants' identifiers and personal data "
        "are findings; exports are bounded over calls.",
        tests=(
            f"{_WORDS}::test_exfiltration_by_a_second_server",
            f"{_NUMBERS}::test_bulk_export_in_many_small_calls",
            "test_gateway_sessions.py::test_the_servers_name_of_a_session_never_reaches_a_client_and_the_clients_never_the_server",
        ),
        records=("decision", "session_end"),
        evidence="the kill and its rule; the windows among the recorded `facts`",
        open="Contexts that agents share among themselves outside of MCP.",
    ),
)

AGENTIC = (
    Risk(
        number="ASI01",
        words="An agent is given another goal",
        defence="Orders in content, tools and prompts are findings; after untrusted content writes wait for people; "
        "calls off the declared role are findings.",
        tests=(
            f"{_WORDS}::test_confused_deputy",
            f"{_WORDS}::test_an_instruction_in_a_resource",
            f"{_TOOLS}::test_rug_pull",
            "test_inspector.py::test_each_kind_is_found",
        ),
        records=("decision", "outcome", "approval", "tool"),
        evidence="`inspection` by kind and rule; what people said of held calls; quarantines",
        open="What the model thinks: we see calls, and not goals.",
    ),
    Risk(
        number="ASI02",
        words="Permitted tools used to do harm",
        defence="Amounts, prices, rows and rates bounded over calls, sessions and the fleet; what cannot be "
        "undone is held.",
        tests=(
            f"{_NUMBERS}::test_refund_draining",
            f"{_NUMBERS}::test_refund_draining_by_calls_that_are_under_way_at_once",
            f"{_NUMBERS}::test_price_tampering",
            f"{_NUMBERS}::test_bulk_export_in_many_small_calls",
        ),
        records=("decision",),
        evidence="each denial with the cap's rule; the values of the windows among the `facts`",
        open="Harm within the bounds: who may refund 500 may refund the wrong 500.",
    ),
    Risk(
        number="ASI03",
        words="Identities and rights that are borrowed",
        defence="Agent and user are authenticated apart; no token is passed on; a kill follows the principal; people "
        "log in by OpenID Connect and machines approve nothing.",
        tests=(
            f"{_TOOLS}::test_stolen_token_at_three_in_the_morning",
            "test_gateway_identity.py::test_a_killed_principal_does_not_come_back_with_another_token_of_any_kind",
            "test_approvals.py::test_a_machines_token_neither_sees_nor_agrees_whatever_its_role",
            "test_approvals.py::test_who_asked_for_a_call_cannot_agree_to_it_by_his_other_login",
        ),
        records=("decision", "approval", "access"),
        evidence="who called and how that was proven (`authn`); refused agreements with their `reason`; who was "
        "refused for being no person",
        open="Rights of a server's own credential; see MCP02.",
    ),
    Risk(
        number="ASI04",
        words="What agents are built from is not what it was",
        defence="Pins and signed manifests of tools; bundles signed and reviewed; discovery of what was added on "
        "the side.",
        tests=(
            f"{_TOOLS}::test_rug_pull",
            f"{_TOOLS}::test_shadowed_tool",
            "test_tools_command.py::test_other_keys_than_those_that_are_trusted_sign_nothing",
            "test_discovery.py::test_a_server_that_a_client_starts_is_a_shadow_until_it_is_wrapped",
        ),
        records=("tool", "bundle"),
        evidence="definitions that changed, and what a manifest `vouched` for; who published and who reviewed a bundle",
        open="Models, prompts and libraries of the agent itself.",
    ),
    Risk(
        number="ASI05",
        words="Code that runs and was not meant to",
        defence="Execution and infrastructure are topics of roles, off which a call is a finding; irreversible tools "
        "are held with exactly what will run shown.",
        tests=(
            "test_approvals_browser.py::test_a_click_on_approve_releases_exactly_the_held_call",
            "test_gateway_approvals.py::test_changed_arguments_are_another_call_with_an_approval_of_its_own",
            "test_inspector.py::test_each_kind_is_found",
        ),
        records=("decision", "approval"),
        evidence="the exact message's `binding`, who opened it, and what was said",
        open="We are no sandbox: what a permitted call executes, it executes.",
    ),
    Risk(
        number="ASI06",
        words="Memory and context that were poisoned",
        defence="What is written by a tool and what is read back is inspected alike; a session that read untrusted "
        "content stays marked to its end.",
        tests=(
            f"{_WORDS}::test_an_instruction_in_a_resource",
            f"{_WORDS}::test_exfiltration_by_a_second_server",
            "test_inspector.py::test_what_an_encoding_hides_has_the_span_of_the_encoded_piece",
        ),
        records=("decision", "outcome"),
        evidence="`inspection` of calls and of answers; what a session has seen, among the `facts`; keyed "
        "fingerprints of contents",
        open="Memory that is not behind a gateway; poison over many sessions, each harmless.",
    ),
    Risk(
        number="ASI07",
        words="Agents that talk without knowing to whom",
        defence="Hybrid post-quantum mutual TLS on every hop; names bound to certificates; what servers ask of "
        "clients "
        "is judged as well.",
        tests=(
            "test_gateway_certificates.py::test_a_certificate_names_its_agent_and_with_a_token_both_must_name_the_same",
            "test_gateway_eras.py::test_what_a_policy_denies_a_server_its_client_never_sees",
        ),
        records=("decision",),
        evidence="`tls_version`, `tls_group` and the direction of each message",
        open="Agents that talk by other protocols than MCP.",
    ),
    Risk(
        number="ASI08",
        words="One failure that becomes many",
        defence="Unavailable parts deny; rates and counts are bounded; a session, agent, tool, server or "
        "everything is "
        "stopped at every gateway.",
        tests=(
            "test_containment.py::test_what_is_contained_is_stopped_at_every_gateway_and_let_go_by_two",
            "test_gateway_outages.py::test_a_strict_call_is_denied_while_the_ledger_is_away_and_the_denial_arrives_later",
            "test_gateway_approvals.py::test_no_more_is_held_at_once_than_may_be",
        ),
        records=("containment", "decision", "heartbeat"),
        evidence="what was stopped, by whom and why; the reason of each denial; that a gateway was alive",
        open="What goes wrong between agents before any of them calls a tool.",
    ),
    Risk(
        number="ASI09",
        words="People who are talked into a yes",
        defence="Whoever approves sees exactly what will run, with what hides written out; never one's own call; as "
        "many people as a tool needs; what was opened is recorded.",
        tests=(
            "test_approvals_browser_evaded.py::test_whoever_asked_for_a_call_clicks_in_vain",
            "test_approvals.py::test_only_those_who_have_opened_it_agree",
            "test_approvals.py::test_as_many_different_people_as_it_needs",
            "test_tools_command.py::test_an_approver_looks_at_the_difference_and_approves_what_he_saw",
        ),
        records=("approval", "tool"),
        evidence="`seen`, `granted`, `denied` and `refused`, each with who it was and under which role",
        open="A person who reads and agrees to what is wrong.",
    ),
    Risk(
        number="ASI10",
        words="Agents that go their own way",
        defence="A learned and frozen baseline with thirteen detectors; departures are facts for policy and records; "
        "kills and containments.",
        tests=(
            "test_gateway_profiles.py::test_a_bot_that_turns_is_flagged_with_its_first_call_and_the_record_names_it",
            "test_detectors.py::test_a_turn_is_flagged_within_the_calls_that_are_promised",
            "test_containment.py::test_a_call_under_evaluation_when_it_is_contained_never_reaches_the_server",
        ),
        records=("baseline", "drift", "decision", "containment"),
        evidence="what was usual, what departed from it and the calls that show so; `deviations` of each decision",
        open="Slow change within thresholds, and whatever it did while its baseline was learned.",
    ),
)

_HEAD = """# Two lists of OWASP, and what stands against each risk

Made by `python -m tests.support.owasp_document`; `tests/unit/repo/test_owasp.py` compares, and looks up every test,
type of record and member that is named. The lists are the *MCP Top 10* of 2025 and the *Top 10 for Agentic
Applications* of 2026; their risks are named here by number, in our own words. Files are named without their folder.

A test shows that a defence holds where it is configured, and not that a risk is gone. What is not defended stands in
each part. Safeguards are tuned as [their page](safeguards.md) says; how much inspection finds is
[measured](detection.md).
"""


def _part(risk: Risk) -> str:
    tests = "\n".join(f"- `{test}`" for test in risk.tests)
    records = ", ".join(f"`{record}`" for record in risk.records)
    defence, kept, open_ = (
        textwrap.fill(text, 130, break_long_words=False, break_on_hyphens=False)
        for text in (risk.defence, f"In the ledger ({records}): {risk.evidence}.", f"Not defended: {risk.open}")
    )
    return f"### {risk.number}: {risk.words}\n\n{defence}\n\n{tests}\n\n{kept}\n\n{open_}\n"


def document() -> str:
    """Return the page."""
    lists = (("The MCP list", MCP), ("The agentic list", AGENTIC))
    parts = [f"## {title}\n\n" + "\n".join(_part(risk) for risk in risks) for title, risks in lists]
    return _HEAD + "\n" + "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(document())
