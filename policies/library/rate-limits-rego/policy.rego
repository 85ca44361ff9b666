package tallystick.rate_limits

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
	is_number(data.settings.burst)
	is_number(data.settings.minute)
	is_number(data.settings.tool_minute)
	is_number(data.settings.day)
	is_number(data.settings.session)
	is_number(data.settings.refused)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "rate-callers" if {
	guarded
	"caller" in facts.roles
}

denies contains "rate-burst" if {
	guarded
	not within_burst
}

denies contains "rate-day" if {
	guarded
	not within_day
}

denies contains "rate-minute" if {
	guarded
	not within_minute
}

denies contains "rate-refused" if {
	guarded
	not seldom_refused
}

denies contains "rate-session" if {
	guarded
	not within_session
}

denies contains "rate-tool" if {
	guarded
	not within_tool
}

obligations contains "end_session" if "rate-refused" in denies

guarded if {
	facts.call
	"metered" in facts.tags
}

within_burst if input.state.windows.calls_burst <= data.settings.burst

within_day if input.state.windows.calls_day <= data.settings.day

within_minute if input.state.windows.calls_minute <= data.settings.minute

seldom_refused if input.state.windows.refused <= data.settings.refused

within_session if input.state.calls < data.settings.session

tool_limit := object.get(facts.tool, "per_minute", data.settings.tool_minute)

within_tool if {
	is_number(tool_limit)
	input.state.windows.tool_minute <= tool_limit
}
