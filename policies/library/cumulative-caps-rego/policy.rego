package tallystick.cumulative_caps

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
	is_number(data.settings.call)
	is_number(data.settings.session)
	is_number(data.settings.day)
	is_number(data.settings.agent)
	is_object(data.settings.agent_caps)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "cap-payers" if {
	guarded
	"payer" in facts.roles
}

denies contains "cap-agent" if {
	guarded
	not within_agent
}

denies contains "cap-amount" if {
	guarded
	not within_call
}

denies contains "cap-day" if {
	guarded
	not within_day
}

denies contains "cap-session" if {
	guarded
	not within_session
}

guarded if {
	facts.call
	"payment" in facts.tags
}

within_call if {
	input.args.amount > 0
	input.args.amount <= data.settings.call
}

agent_cap := object.get(data.settings.agent_caps, input.principal.agent, data.settings.agent)

within_agent if {
	is_number(agent_cap)
	input.state.windows.paid_agent <= agent_cap
}

within_day if input.state.windows.paid_day <= data.settings.day

within_session if input.state.windows.paid_session <= data.settings.session
