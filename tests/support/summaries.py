"""Pack summaries for tests of the report: a week of four businesses, and the cases at its edges.

The counts of a summary are made from one list of decisions, as `evidence.assemble` makes them from records, so that
they agree with each other. Everything is a function of the arguments; digests are SHA-256 over labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from zoneinfo import ZoneInfo

from evidence.summary import (
    AccessLine,
    AnchorLine,
    BundleLine,
    ControlSheet,
    ControlStatus,
    ControlTestResult,
    CustodyLine,
    DeniedCall,
    Deviation,
    FrameworkSheet,
    Gap,
    PackSummary,
    PolicyChange,
    Population,
    Reperformance,
    SignerLine,
    StreamLine,
    Strength,
)

DAY_MS = 86_400_000
FROM_MS = 1_763_337_600_000
"""2025-11-17 00:00 UTC, a Monday."""
TO_MS = FROM_MS + 7 * DAY_MS
ZONE = "Europe/Berlin"

AUDITOR = hashlib.sha256(b"auditor").hexdigest()[:32]
"""A pseudonym, as all actors of records are."""

FINANCE, SUPPORT, HEALTH, RETAIL = "finance-baseline", "support-baseline", "care-baseline", "retail-baseline"


def digest(label: str) -> str:
    return hashlib.sha256(label.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A kind of call and how often it was made in the week, at which hour of the local day."""

    agent: str
    server: str
    tool: str | None
    bundle: str
    times: int
    hour: int = 10
    effect: str = "PERMIT"
    enforcement: str = "allow"
    reason: str = "policy"
    rules: tuple[str, ...] = ()
    failed: str | None = None
    method: str = "tools/call"
    outcome: str | None = None


def _denied(agent: str, server: str, tool: str | None, bundle: str, times: int, rule: str, **more: object) -> Call:
    call = Call(
        agent=agent,
        server=server,
        tool=tool,
        bundle=bundle,
        times=times,
        effect="DENY",
        enforcement="deny",
        reason="policy_denied",
        rules=(rule,),
        failed=rule,
    )
    return replace(call, **more)  # type: ignore[arg-type]


WEEK: tuple[Call, ...] = (
    Call(agent="finance-bot", server="payroll-db", tool="transfer_funds", bundle=FINANCE, times=38),
    Call(agent="finance-bot", server="payroll-db", tool="list_invoices", bundle=FINANCE, times=57, hour=11),
    Call(agent="support-agent", server="crm", tool="refund_customer", bundle=SUPPORT, times=46, hour=14),
    Call(agent="support-agent", server="crm", tool="search_tickets", bundle=SUPPORT, times=33, hour=15),
    Call(agent="care-assistant", server="ehr", tool="get_patient_records", bundle=HEALTH, times=52, hour=9),
    Call(agent="pricing-bot", server="storefront", tool="update_price", bundle=RETAIL, times=45, hour=13),
    _denied("finance-bot", "payroll-db", "transfer_funds", FINANCE, 9, "finance.business-hours", hour=3),
    _denied("finance-bot", "payroll-db", "transfer_funds", FINANCE, 5, "finance.mfa-required"),
    _denied("pricing-bot", "storefront", "update_price", RETAIL, 8, "retail.price-floor", hour=13),
    _denied(
        "support-agent",
        "crm",
        "export_customers",
        SUPPORT,
        3,
        "support.bulk-export-off-hours-off-site",
        hour=22,
        enforcement="kill",
    ),
    _denied("care-assistant", "ehr", "get_patient_records", HEALTH, 4, "care.record-limit", enforcement="kill", hour=9),
    _denied(
        "support-agent",
        "crm",
        "refund_customer",
        SUPPORT,
        4,
        "support.refund-needs-approval",
        hour=14,
        effect="PERMIT",
        enforcement="ask",
        reason="approval_required",
        failed=None,
        outcome="not_forwarded",
    ),
    _denied(
        "shadow-script",
        "storefront",
        "delete_product",
        RETAIL,
        3,
        "default",
        effect="NOT_APPLICABLE",
        reason="no_rule_applies",
        rules=(),
        failed=None,
    ),
    _denied(
        "pricing-bot",
        "storefront",
        None,
        RETAIL,
        2,
        "mcp.duplicate-key",
        effect="INDETERMINATE",
        reason="message_duplicate_key",
        rules=(),
        failed=None,
        method="",
    ),
)
"""309 calls in 14 kinds, 38 of which did not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    leaf: int
    time_ms: int
    call: Call


def _decisions(calls: Iterable[Call], *, days: int) -> list[_Decision]:
    """Spread the calls over the days of the period, in the order of time."""
    zone = ZoneInfo(ZONE)
    timed: list[tuple[int, Call]] = []
    for kind, call in enumerate(calls):
        for number in range(call.times):
            midnight = datetime.fromtimestamp((FROM_MS + (number + kind) % days * DAY_MS) / 1000, UTC)
            second = int(digest(f"{kind}/{number}")[:6], 16) % 3600
            local = datetime(
                midnight.year, midnight.month, midnight.day, call.hour, second // 60, second % 60, tzinfo=zone
            )
            timed.append((int(local.timestamp()) * 1000, call))
    timed.sort(key=lambda item: item[0])
    leaf = count(9)
    decisions = []
    for time_ms, call in timed:
        decisions.append(_Decision(leaf=next(leaf), time_ms=time_ms, call=call))
        if call.effect == "PERMIT":
            next(leaf)  # its outcome
    return decisions


def _denied_call(decision: _Decision) -> DeniedCall:
    call = decision.call
    local = datetime.fromtimestamp(decision.time_ms / 1000, ZoneInfo(ZONE))
    name = digest(f"record/{decision.leaf}")
    return DeniedCall(
        leaf=decision.leaf,
        record_id=f"{name[:8]}-{name[8:12]}-4{name[13:16]}-8{name[17:20]}-{name[20:32]}",
        time_ms=decision.time_ms,
        local_time=local.strftime("%H:%M"),
        agent=call.agent,
        user=digest(call.agent + "user")[:32] if call.agent != "shadow-script" else None,
        session=digest(f"session/{call.agent}/{local:%j}")[:32],
        server=call.server,
        method=call.method,
        tool=call.tool,
        effect=call.effect,
        enforcement=call.enforcement,
        reason=call.reason,
        rules=call.rules,
        failed_condition=call.failed,
        bundle_revision=digest(call.bundle),
        outcome=call.outcome,
        proof=f"proofs/{decision.leaf}.tlog-proof",
        simulated=True,
    )


def _tally(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    tally: dict[str, Counter[str]] = defaultdict(Counter)
    for key, enforcement in pairs:
        tally[key][enforcement] += 1
    return {key: dict(sorted(tally[key].items())) for key in sorted(tally)}


def _population(decisions: Sequence[_Decision], size: int) -> Population:
    passed = sum(d.call.effect == "PERMIT" for d in decisions)
    stopped = [d.call for d in decisions if d.call.enforcement != "allow"]
    by_type = {"access": 4, "bundle": 8, "decision": len(decisions) + 2, "key": 5, "outcome": passed}
    return Population(
        first_leaf=0,
        end_leaf=size,
        records=size,
        records_by_type={**by_type, "heartbeat": size - sum(by_type.values())},
        decisions=len(decisions),
        by_effect=dict(sorted(Counter(d.call.effect for d in decisions).items())),
        by_enforcement=dict(sorted(Counter(d.call.enforcement for d in decisions).items())),
        observed=0,
        late=(),
        outside=2,
        by_day=_tally(
            (datetime.fromtimestamp(d.time_ms / 1000, UTC).strftime("%Y-%m-%d"), d.call.enforcement) for d in decisions
        ),
        by_tool=_tally((f"{d.call.server}/{d.call.tool or '(none)'}", d.call.enforcement) for d in decisions),
        by_rule=dict(sorted(Counter(call.rules[0] if call.rules else call.reason for call in stopped).items())),
        completeness="complete",
        root_recomputed=True,
    )


def _passed(test: str, sentence: str, population: int, failed: Sequence[Deviation] = ()) -> ControlTestResult:
    return ControlTestResult(
        test=test,
        sentence=sentence,
        population=population,
        passed=population - len(failed),
        failed=len(failed),
        deviations=tuple(failed),
    )


def _controls(
    framework: str, rows: Iterable[tuple[str, str, Strength, str, str]], decisions: int, stopped: int
) -> Iterator[ControlSheet]:
    """Yield control sheets; the fourth member of a row names the tests, ``-`` for none."""
    tests = {
        "F": _passed(
            "decision-fields", "Every decision names principal, action, resource, time and policy version.", decisions
        ),
        "D": _passed("denied-not-forwarded", "No denied call has an outcome: none reached its server.", stopped),
        "O": _passed("one-outcome", "Every permitted decision has exactly one outcome.", decisions - stopped),
        "R": _passed(
            "reviewed-bundle",
            "Every decision was made by a bundle that was published before it was activated.",
            decisions,
            [
                Deviation(
                    leaf=412, test="reviewed-bundle", cause="the bundle was activated by the person who published it"
                )
            ],
        ),
        "S": _passed("streams-complete", "Every enforcer's sequence numbers are complete for the period.", 2),
        "K": _passed("kill-ends-session", "After a kill, no call of that session was allowed.", 7),
    }
    for control_id, title, strength, named, adds in rows:
        results = tuple(tests[name] for name in named if name in tests)
        failed = sum(result.failed for result in results)
        if not results:
            status, reason = (
                ControlStatus.NOT_TESTED,
                "No computed test: what is needed here is the customer's evidence.",
            )
        elif failed:
            status, reason = (
                ControlStatus.NOT_SATISFIED,
                f"{failed} of {sum(r.population for r in results):,} tested items failed.",
            )
        else:
            status, reason = (
                ControlStatus.SATISFIED,
                f"0 of {sum(r.population for r in results):,} tested items failed.",
            )
        yield ControlSheet(
            framework=framework,
            control_id=control_id,
            title=title,
            strength=strength,
            evidence=("E1", "E3") if "D" in named else ("E2", "E4"),
            rationale="The gateway decides on every call before it goes upstream, and the log holds each decision.",
            customer_adds=adds,
            procedure="Take every decision of the period from the log; check each against its record and policy.",
            status=status,
            reason=reason,
            tests=results,
        )


_DIRECT, _SUPPORTS = Strength.DIRECT, Strength.SUPPORTS

SOC2_ROWS: tuple[tuple[str, str, Strength, str, str], ...] = (
    (
        "CC2.1",
        "Information that controls rely on is relevant and of quality",
        _DIRECT,
        "FS",
        "Who reads the reports, and how often.",
    ),
    ("CC3.4", "Significant changes are identified and assessed", _SUPPORTS, "R", "The assessment of each change."),
    ("CC4.1", "Controls are evaluated as they run", _SUPPORTS, "FO", "The evaluation plan and its owner."),
    ("CC5.2", "Technology controls are chosen and run", _SUPPORTS, "F", "The selection of controls against risks."),
    ("CC5.3", "Controls follow from written policy", _SUPPORTS, "R", "The written policy that the bundles implement."),
    ("CC6.1", "Access to protected assets is enforced", _DIRECT, "FDO", "That no route leads around the gateway."),
    ("CC6.3", "Access follows role and least privilege", _SUPPORTS, "D", "Periodic review of roles."),
    ("CC6.6", "Threats from outside the boundary are stopped", _SUPPORTS, "DK", "Network design and its review."),
    ("CC6.7", "Movement of data is restricted", _SUPPORTS, "DK", "Classification of data behind each tool."),
    ("CC7.2", "Operation is watched for anomalies", _SUPPORTS, "-", "Alerts, who answered them, and when."),
    ("CC7.3", "Events are evaluated", _SUPPORTS, "-", "Tickets of the events."),
    (
        "CC8.1",
        "Changes are authorised, tested and approved",
        _DIRECT,
        "R",
        "Approval of changes outside of policy bundles.",
    ),
)

HIPAA_ROWS: tuple[tuple[str, str, Strength, str, str], ...] = (
    ("164.308(a)(1)(ii)(D)", "System activity is reviewed regularly", _SUPPORTS, "-", "Minutes of the reviews."),
    ("164.308(a)(3)", "Workforce access is authorised", _SUPPORTS, "F", "Authorisation of people."),
    ("164.308(a)(4)", "Access to health information is authorised", _SUPPORTS, "FD", "The access policy."),
    (
        "164.308(a)(6)(ii)",
        "Incidents are identified, mitigated and documented",
        _SUPPORTS,
        "K",
        "The incident register.",
    ),
    ("164.308(a)(8)", "The safeguards are evaluated periodically", _SUPPORTS, "-", "The evaluation report."),
    (
        "164.312(a)(1)",
        "Only authorised persons and programs have access",
        _DIRECT,
        "FD",
        "That no route leads around the gateway.",
    ),
    ("164.312(a)(2)(i)", "Each user has a unique identity", _DIRECT, "F", "The directory behind the pseudonyms."),
    ("164.312(b)", "Activity is recorded and examined", _DIRECT, "FOS", "That somebody examines the records."),
    (
        "164.312(c)(1)",
        "Records are protected from improper change",
        _DIRECT,
        "S",
        "The same for the health records themselves.",
    ),
    ("164.312(d)", "Who asks is verified", _SUPPORTS, "F", "How identities are proofed."),
    ("164.316(b)(2)(i)", "Documentation is kept for six years", _SUPPORTS, "-", "The retention schedule."),
)


def frameworks(decisions: int, stopped: int) -> tuple[FrameworkSheet, ...]:
    return (
        FrameworkSheet(
            framework="soc2",
            title="SOC 2 Trust Services Criteria",
            version="2017, points of focus 2022",
            mapping_version="1",
            source="AICPA; ids only, titles in our own words",
            controls=tuple(_controls("soc2", SOC2_ROWS, decisions, stopped)),
        ),
        FrameworkSheet(
            framework="hipaa",
            title="HIPAA Security Rule",
            version="45 CFR Part 164, rule in force",
            mapping_version="1",
            source="United States law",
            controls=tuple(_controls("hipaa", HIPAA_ROWS, decisions, stopped)),
        ),
    )


def _bundles(decisions: Sequence[_Decision]) -> tuple[BundleLine, ...]:
    leaves: dict[str, list[int]] = defaultdict(list)
    for decision in decisions:
        leaves[decision.call.bundle].append(decision.leaf)
    return tuple(
        BundleLine(
            name=name,
            revision=digest(name),
            engine="cedar",
            engine_version="4.12.2",
            decisions=len(found),
            first_leaf=found[0],
            last_leaf=found[-1],
            files=tuple(f"policies/{digest(name)}/{file}" for file in ("manifest.json", "policy.cedar", "schema.json")),
        )
        for name, found in sorted(leaves.items())
    )


def _policy_changes(bundles: Iterable[BundleLine]) -> Iterator[PolicyChange]:
    for number, bundle in enumerate(bundles):
        for step, action in enumerate(("published", "activated")):
            yield PolicyChange(
                leaf=2 * number + step + 1,
                time_ms=FROM_MS + number * 60_000 + step * 20_000,
                action=action,
                name=bundle.name,
                revision=bundle.revision,
                previous_revision=digest(bundle.name + "/before") if action == "activated" and number % 2 else None,
                actor=digest("nadia" if step else "jonas")[:32],
                actor_role="admin",
            )


PROVED = (
    "The range holds exactly the records that the signed root commits to: none added, dropped, changed or reordered.",
    "Every record was signed by an enforcer whose key the log introduced before it.",
    "Every denied call listed here stands in the log, with the rule and the policy version that denied it.",
)
NOT_PROVED = (
    "Calls that went around the gateway: they leave no record here.",
    "That the policies are the right ones: the pack shows which rules applied, not whether they are enough.",
    "The time of a record beyond what the enforcers' and the log's clocks say: no outside party dated the checkpoint.",
)


def build(calls: Iterable[Call] = WEEK, *, days: int = 7) -> PackSummary:
    """Return the summary of a pack over ``calls``, spread over ``days`` from `FROM_MS`."""
    decisions = _decisions(calls, days=days)
    stopped = [d for d in decisions if d.call.enforcement != "allow"]
    size = (decisions[-1].leaf if decisions else 12) + 30
    bundles = _bundles(decisions)
    to_ms = FROM_MS + days * DAY_MS
    return PackSummary(
        pack_id="7c0e4f3a-5a1d-5d0e-9d0b-2f6a1c9e8b47",
        title="Evidence of policy enforcement for AI agents",
        tenant="Acme Group",
        log_id="acme",
        origin="log.acme.example/acme",
        environment="demo",
        simulated=True,
        from_ms=FROM_MS,
        to_ms=to_ms,
        zone=ZONE,
        tree_size=size,
        root=digest("root"),
        checkpoint_ms=to_ms + 95_000,
        software="Tallystick 0.1.0",
        signers=tuple(
            SignerLine(
                role=role,
                algorithm=algorithm,
                name=name,
                key_id=digest(role + algorithm)[:8],
                fingerprint=digest(role + algorithm),
            )
            for role, name in (("log", "log.acme.example/acme"), ("pack", "packs.acme.example"))
            for algorithm in ("ed25519", "ml-dsa-44")
        ),
        witnesses=(),
        anchors=(
            AnchorLine(
                kind="directory",
                size=size,
                location=f"checkpoints/{size:012d}.txt",
                anchored_ms=to_ms + 95_400,
                retain_until_ms=to_ms + 365 * DAY_MS,
            ),
        ),
        population=_population(decisions, size),
        streams=(
            StreamLine(
                enforcer_id="gateway-eu-1",
                epoch=digest("epoch/1")[:32],
                verdict="complete",
                reason=f"all {size - 40} numbers are accounted for beyond the end of the period",
                records=size - 40,
                decisions=len(decisions),
                missing=(),
                lost=(),
                last_heartbeat_ms=to_ms + 90_000,
            ),
            StreamLine(
                enforcer_id="service",
                epoch=digest("epoch/2")[:32],
                verdict="complete",
                reason="all 17 numbers are accounted for and the stream was closed",
                records=17,
                decisions=0,
                missing=(),
                lost=(),
                last_heartbeat_ms=to_ms + 91_000,
            ),
        ),
        frameworks=frameworks(len(decisions), len(stopped)),
        denied=tuple(_denied_call(d) for d in stopped),
        bundles=bundles,
        policy_changes=tuple(_policy_changes(bundles)),
        reperformance=Reperformance(by_class={"exact": len(decisions)}, same=len(decisions), different=()),
        access=(
            AccessLine(
                leaf=size - 9,
                time_ms=to_ms - 7_200_000,
                action="query",
                actor=AUDITOR,
                actor_role="auditor",
                target="log acme",
                items=50,
                result="ok",
            ),
            AccessLine(
                leaf=size - 3,
                time_ms=to_ms + 60_000,
                action="export_pack",
                actor=AUDITOR,
                actor_role="auditor",
                target="pack 7c0e4f3a-5a1d-5d0e-9d0b-2f6a1c9e8b47",
                items=1,
                result="ok",
            ),
        ),
        custody=(
            CustodyLine(step="request", detail=f"{AUDITOR} asked for soc2, hipaa over the period"),
            CustodyLine(step="checkpoint", detail=f"the published checkpoint of size {size} was taken"),
            CustodyLine(step="extraction", detail=f"{size} of {size} entries read, root recomputed"),
            CustodyLine(step="re-performance", detail=f"{len(decisions)} of {len(decisions)} decisions replayed"),
            CustodyLine(step="sealing", detail="manifest signed by packs.acme.example with ed25519 and ml-dsa-44"),
        ),
        gaps=(Gap(kind="witness", sentence="No outside witness cosigned the checkpoint."),),
        proved=PROVED,
        not_proved=NOT_PROVED,
    )


def demo() -> PackSummary:
    """Return the story of the demonstration: 309 decisions, 38 of them did not pass, two frameworks."""
    return build()


def tiny() -> PackSummary:
    """Return one allowed and one denied call, one framework with one control, nothing else, and not simulated."""
    summary = build([replace(WEEK[0], times=1), replace(WEEK[6], times=1)], days=1)
    first = summary.frameworks[0]
    return replace(
        summary,
        simulated=False,
        environment="production",
        denied=tuple(replace(call, simulated=False) for call in summary.denied),
        frameworks=(replace(first, controls=first.controls[5:6]),),
        access=(),
        gaps=(),
    )


def empty() -> PackSummary:
    """Return a period in which nothing happened: every section is empty and must say why."""
    summary = build([])
    return replace(
        summary,
        frameworks=(),
        denied=(),
        bundles=(),
        policy_changes=(),
        streams=(),
        anchors=(),
        access=(),
        custody=(),
        gaps=(),
        proved=(),
        not_proved=(),
        population=replace(summary.population, records_by_type={}, completeness="tail unknown", outside=0),
    )


def _insufficient(control: ControlSheet) -> ControlSheet:
    """Return a control with one test that had nothing to look at, and one that its verdict does without."""
    sentence = "At least one call that no rule allows was denied."
    test = ControlTestResult(test="default-deny", sentence=sentence, population=0, passed=0, failed=0, deviations=())
    needs_not = replace(test, test="approval-bound", sentence="Every approval is bound to its call.", conditional=True)
    return replace(
        control,
        status=ControlStatus.NOT_APPLICABLE,
        reason="Insufficient evidence: 0 of 1 items needed.",
        tests=(test, needs_not),
    )


def troubled() -> PackSummary:
    """Return a pack with all that can be wrong: gaps, late and observed records, mismatches, no recomputed root."""
    summary = demo()
    stream = summary.streams[0]
    return replace(
        summary,
        population=replace(
            summary.population,
            completeness="gap",
            observed=21,
            late=(581, 583, 590),
            root_recomputed=False,
        ),
        streams=(
            replace(
                stream,
                verdict="gap",
                reason="14 of 560 sequence numbers are missing",
                missing=((17, 19), (101, 110), (400, 400)),
                lost=((222, 224),),
                last_heartbeat_ms=None,
            ),
            replace(
                summary.streams[1], verdict="tail unknown", reason="no heartbeat shows what came after the last record"
            ),
        ),
        frameworks=(
            *summary.frameworks[:1],
            replace(
                summary.frameworks[1],
                controls=(_insufficient(summary.frameworks[1].controls[0]), *summary.frameworks[1].controls[1:]),
            ),
        ),
        denied=(*summary.denied[:-1], replace(summary.denied[-1], proof="")),
        reperformance=Reperformance(
            by_class={"exact": 293, "erased": 9, "missing_fact": 4, "engine_changed": 3}, same=291, different=(77, 301)
        ),
        gaps=(
            *summary.gaps,
            Gap(kind="stream", sentence="gateway-eu-1: 14 of 560 sequence numbers are missing."),
            Gap(kind="observe", sentence="21 of 309 decisions were made in observe mode and not enforced."),
        ),
        witnesses=("witness.example/w1", "witness.example/w2"),
    )


HOSTILE_TEXT = (
    "<script>alert(1)</script>",
    "<img src=http://127.0.0.1:9/track.png onerror=x>",
    "{{ 7 * 7 }}{% raw %}",
    "invoice\u202egpj.exe",
    "pa\u0443roll-db",
    "zero\u200bwidth\ufeff",
    "給与データベース/送金",
    "T" * 200,
    "a  b\tc\nd ",
    "\u2039U+202E\u203a",
    '"><style>*{display:none}</style>',
    "cafe\u0301",
)
"""Markup, templates, bidirectional overrides, homographs, invisible characters, other scripts, length, white space."""


def hostile() -> PackSummary:
    """Return the demonstration with every free name replaced by hostile text."""
    summary = demo()
    texts = HOSTILE_TEXT

    def pick(number: int) -> str:
        return texts[number % len(texts)]

    return replace(
        summary,
        title=f"Report {texts[0]} {texts[3]}",
        tenant=f"{texts[6]} {texts[0]}",
        environment=texts[3],
        denied=tuple(
            replace(
                call,
                agent=pick(number),
                user=pick(number + 1),
                session=pick(number + 2),
                server=pick(number + 3),
                method=pick(number + 4),
                tool=pick(number + 5),
                reason=pick(number + 6),
                rules=(pick(number + 7), pick(number + 8)),
                failed_condition=pick(number + 9),
            )
            for number, call in enumerate(summary.denied)
        ),
        population=replace(
            summary.population,
            by_tool={f"{text}/tool": {"allow": 3, "deny": number} for number, text in enumerate(texts)},
            by_rule={text: number + 1 for number, text in enumerate(texts)},
        ),
        bundles=tuple(replace(bundle, name=pick(n), files=texts) for n, bundle in enumerate(summary.bundles)),
        policy_changes=tuple(replace(c, name=pick(n), actor=pick(n + 1)) for n, c in enumerate(summary.policy_changes)),
        access=tuple(replace(line, actor=pick(n), target=pick(n + 1)) for n, line in enumerate(summary.access)),
        gaps=tuple(Gap(kind="text", sentence=text) for text in texts),
        custody=tuple(CustodyLine(step=text, detail=text) for text in texts),
        proved=texts,
        not_proved=texts,
    )


def many_denied(number: int) -> PackSummary:
    """Return a summary with ``number`` denied calls of one kind over 28 days, and little else."""
    summary = build([replace(WEEK[0], times=10), replace(WEEK[6], times=number)], days=28)
    return replace(summary, frameworks=summary.frameworks[:1])
