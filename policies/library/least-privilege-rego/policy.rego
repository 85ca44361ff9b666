package tallystick.least_privilege

import data.tallystick.facts

default allow := false

allow if {
	sound_settings
	count(permits) > 0
	count(denies) == 0
}

# Rego compares a number with a text without complaint, so data of another type must allow nothing at all.
sound_settings if facts.sound_data

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "privilege-granted" if {
	facts.call
	some role in facts.tool.granted_to
	role in facts.roles
}

permits contains "privilege-readable" if {
	reading
	some role in facts.server.readable_to
	role in facts.roles
}

denies contains "privilege-anonymous" if {
	using
	not facts.proved
}

denies contains "privilege-personal" if {
	using
	"personal" in facts.tags
	not known_user
}

denies contains "privilege-read-only" if {
	facts.call
	"read-only" in facts.roles
	not only_reads
}

reading if {
	facts.named
	input.action in {"prompts/get", "resources/read"}
}

using if facts.call

using if reading

known_user if is_string(input.principal.user)

only_reads if {
	"read" in facts.tags
	not "write" in facts.tags
}
