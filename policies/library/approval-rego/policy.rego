package tallystick.approval

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
	is_number(data.settings.most)
	is_array(data.settings.frozen_dates)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "approval-financial" if {
	facts.call
	"financial" in facts.tags
	"payer" in facts.roles
}

permits contains "approval-infrastructure" if {
	facts.call
	"infrastructure" in facts.tags
	"operator" in facts.roles
}

permits contains "approval-routine" if {
	facts.call
	"routine" in facts.tags
	"operator" in facts.roles
	not grave
}

permits contains "approval-shell" if {
	facts.call
	"shell" in facts.tags
	"operator" in facts.roles
}

obligations contains "approval" if {
	allow
	some permit in {"approval-financial", "approval-infrastructure", "approval-shell"}
	permit in permits
}

denies contains "approval-amount" if {
	facts.call
	"financial" in facts.tags
	not within_limit
}

denies contains "approval-frozen" if {
	facts.call
	"infrastructure" in facts.tags
	not open_day
}

denies contains "approval-second-factor" if {
	facts.call
	grave
	not second_factor
}

denies contains "approval-unattended" if {
	facts.call
	grave
	not attended
}

grave if {
	some tag in {"shell", "infrastructure", "financial"}
	tag in facts.tags
}

within_limit if {
	input.args.amount > 0
	input.args.amount <= data.settings.most
}

# Undefined, and so no open day, if the list of frozen days is missing.
open_day if {
	every day in data.settings.frozen_dates { day != input.time.local_date }
}

second_factor if {
	facts.proved
	input.principal.mfa == true
}

attended if is_string(input.principal.user)
