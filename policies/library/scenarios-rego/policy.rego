package tallystick.scenarios

import data.tallystick.facts

default allow := false

allow if {
	sound_settings
	count(permits) > 0
	count(denies) == 0
}

# Rego compares a number with a text without complaint, so data of another type must allow nothing at all.
sound_settings if {
	facts.sound_data
	is_array(data.settings.suspended_agents)
	is_array(data.settings.blocked_addresses)
	is_number(data.settings.calls)
	is_array(data.settings.closed_dates)
	is_number(data.settings.count)
	is_number(data.settings.denied)
	is_array(data.settings.networks)
	is_number(data.settings.until_ms)
	is_array(data.settings.roots)
	is_number(data.settings.calls_minute)
	is_number(data.settings.refused)
	is_array(data.settings.regions)
	is_number(data.settings.rows_session)
	is_array(data.settings.revoked_sessions)
	is_number(data.settings.session_ms)
	is_array(data.settings.users)
	is_string(data.settings.zone)
	is_number(data.settings.amount)
	is_number(data.settings.approval_over)
	is_number(data.settings.spent_day)
}

permits contains "listing" if {
	input.action == "tools/list"
	input.resource.server == "desk"
	not facts.named
	facts.proved
}

permits contains "work" if {
	work
	"worker" in facts.roles
}

permits contains "work-large" if {
	work
	"worker" in facts.roles
	input.args.amount > data.settings.approval_over
}

obligations contains "approval" if {
	allow
	"work-large" in permits
}

work if {
	facts.call
	input.resource.server == "desk"
	input.resource.name == "work"
}

denies contains "address-blocked" if {
	work
	not sound_address_blocked
}

sound_address_blocked if {
	every blocked in data.settings.blocked_addresses { blocked != input.environment.address }
}

denies contains "agent-suspended" if {
	work
	not sound_agent_suspended
}

sound_agent_suspended if {
	every suspended in data.settings.suspended_agents { suspended != input.principal.agent }
}

denies contains "amount-limit" if {
	work
	not sound_amount_limit
}

sound_amount_limit if {
	input.args.amount > 0
	input.args.amount <= data.settings.amount
}

denies contains "authn-none" if {
	work
	not sound_authn_none
}

sound_authn_none if facts.proved

denies contains "boundary-drift" if {
	work
	not sound_boundary_drift
}

sound_boundary_drift if {
	input.boundary.known
	count(input.boundary.drift) == 0
}

denies contains "calls-limit" if {
	work
	not sound_calls_limit
}

sound_calls_limit if input.state.calls < data.settings.calls

denies contains "count-limit" if {
	work
	not sound_count_limit
}

sound_count_limit if {
	input.args.count >= 0
	input.args.count <= data.settings.count
}

denies contains "date-closed" if {
	work
	not sound_date_closed
}

sound_date_closed if {
	every closed in data.settings.closed_dates { closed != input.time.local_date }
}

denies contains "denied-limit" if {
	work
	not sound_denied_limit
}

sound_denied_limit if input.state.denied <= data.settings.denied

obligations contains "end_session" if "denied-limit" in denies

denies contains "dry-run-only" if {
	work
	not sound_dry_run_only
}

sound_dry_run_only if input.args.dry_run == true

denies contains "hour-closed" if {
	work
	not sound_hour_closed
}

sound_hour_closed if {
	input.time.hour >= 8
	input.time.hour <= 17
}

denies contains "mfa-missing" if {
	work
	not sound_mfa_missing
}

sound_mfa_missing if input.principal.mfa == true

denies contains "minute-closed" if {
	work
	not sound_minute_closed
}

sound_minute_closed if input.time.minute < 55

denies contains "network-untrusted" if {
	work
	not sound_network_untrusted
}

sound_network_untrusted if input.environment.network in data.settings.networks

denies contains "now-late" if {
	work
	not sound_now_late
}

sound_now_late if input.time.now_ms < data.settings.until_ms

denies contains "path-outside" if {
	work
	not sound_path_outside
}

sound_path_outside if {
	some root in data.settings.roots
	root in input.args.path
}

denies contains "rate-limit" if {
	work
	not sound_rate_limit
}

sound_rate_limit if input.state.windows.calls_minute <= data.settings.calls_minute

denies contains "refused-limit" if {
	work
	not sound_refused_limit
}

sound_refused_limit if input.state.windows.refused <= data.settings.refused

obligations contains "end_session" if "refused-limit" in denies

denies contains "region-unknown" if {
	work
	not sound_region_unknown
}

sound_region_unknown if input.args.region in data.settings.regions

denies contains "rows-limit" if {
	work
	not sound_rows_limit
}

sound_rows_limit if input.state.windows.rows_session <= data.settings.rows_session

denies contains "session-revoked" if {
	work
	not sound_session_revoked
}

sound_session_revoked if {
	every revoked in data.settings.revoked_sessions { revoked != input.state.session }
}

denies contains "session-stale" if {
	work
	not sound_session_stale
}

sound_session_stale if input.time.now_ms - input.state.started_ms <= data.settings.session_ms

denies contains "spent-limit" if {
	work
	not sound_spent_limit
}

sound_spent_limit if input.state.windows.spent_day <= data.settings.spent_day

denies contains "tag-frozen" if {
	work
	"frozen" in facts.tags
}

denies contains "tainted" if {
	work
	not sound_tainted
}

sound_tainted if input.state.windows.tainted == false

denies contains "user-unknown" if {
	work
	not sound_user_unknown
}

sound_user_unknown if input.principal.user in data.settings.users

denies contains "weekday-closed" if {
	work
	not sound_weekday_closed
}

sound_weekday_closed if input.time.weekday <= 5

denies contains "zone-foreign" if {
	work
	not sound_zone_foreign
}

sound_zone_foreign if input.time.zone == data.settings.zone
