package tallystick.safeguards

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
	not unsound
}

# A tag that is lost would open what it closes.
unsound if {
	some signs in data.settings.tags
	not is_array(signs)
}

unsound if {
	some server in data.settings.servers
	not is_object(server.tools)
}

unsound if {
	some server in data.settings.servers
	some tool in server.tools
	not is_array(tool.tags)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "safeguards-open" if {
	using
	open
	not "redacted" in facts.tags
}

permits contains "safeguards-redacted" if {
	using
	open
	"redacted" in facts.tags
}

obligations contains "redact_result" if {
	using
	open
	"redacted" in facts.tags
}

denies contains "safeguards-anonymous" if {
	using
	not facts.proved
}

denies contains "safeguards-inspected" if {
	using
	not inspected
}

denies contains "safeguards-secret" if {
	using
	"secret" in input.signals.kinds
	not "takes-secrets" in facts.tags
}

denies contains "safeguards-personal" if {
	using
	"personal" in input.signals.kinds
	not "takes-personal" in facts.tags
}

denies contains "safeguards-tenant" if {
	using
	"tenant" in input.signals.kinds
}

denies contains "safeguards-hostile" if {
	using
	some kind in input.signals.kinds
	kind in {"injection", "exfiltration", "unicode", "ansi", "bomb"}
}

denies contains "safeguards-intent" if {
	facts.call
	"intent" in input.signals.kinds
}

denies contains "safeguards-quarantine" if {
	facts.call
	input.signals.tool_state == "quarantined"
}

denies contains "safeguards-pinned" if {
	facts.call
	"irreversible" in facts.tags
	not pinned
}

denies contains "safeguards-usual" if {
	facts.call
	"irreversible" in facts.tags
	not usual
}

using if facts.call

using if {
	facts.named
	input.action in {"prompts/get", "resources/read"}
}

open if {
	some role in facts.server.open_to
	role in facts.roles
}

inspected if input.signals.inspected == "complete"

pinned if input.signals.tool_state == "pinned"

usual if {
	input.signals.baseline == "ready"
	count(input.signals.deviations) == 0
}
