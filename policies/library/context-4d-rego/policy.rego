package tallystick.context_4d

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
	is_array(data.settings.weekdays)
	is_number(data.settings.opens_minute)
	is_number(data.settings.closes_minute)
	is_array(data.settings.trusted_networks)
	is_number(data.settings.bulk_rows)
	is_number(data.settings.max_denied)
	is_number(data.settings.max_session_ms)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "context-exporters" if {
	guarded
	exporter
}

permits contains "context-two-signs" if {
	guarded
	exporter
	count(signs) >= 2
}

obligations contains "approval" if {
	allow
	"context-two-signs" in permits
}

denies contains "context-exfiltration" if {
	guarded
	count(signs) == 3
}

denies contains "context-identity" if {
	guarded
	"untrusted network" in signs
	not second_factor
}

denies contains "context-probing" if {
	guarded
	not few_denials
}

denies contains "context-stale-session" if {
	guarded
	not fresh_session
}

obligations contains "end_session" if "context-exfiltration" in denies

obligations contains "end_session" if "context-probing" in denies

guarded if {
	facts.call
	"export" in facts.tags
}

exporter if "exporter" in facts.roles

signs contains "out of hours" if not opening_hours

signs contains "untrusted network" if not trusted_network

signs contains "bulk" if not few_rows

minute := (input.time.hour * 60) + input.time.minute

opening_hours if {
	input.time.weekday in data.settings.weekdays
	data.settings.opens_minute <= minute
	minute < data.settings.closes_minute
}

trusted_network if input.environment.network in data.settings.trusted_networks

few_rows if {
	input.args.rows > 0
	input.args.rows <= data.settings.bulk_rows
}

second_factor if {
	facts.proved
	input.principal.mfa == true
}

few_denials if input.state.denied <= data.settings.max_denied

fresh_session if input.time.now_ms - input.state.started_ms <= data.settings.max_session_ms
