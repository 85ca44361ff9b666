package tallystick.confused_deputy

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

permits contains "deputy-read" if {
	using
	assistant
	"read" in facts.tags
}

permits contains "deputy-untrusted" if {
	using
	assistant
	"write" in facts.tags
	not unspoilt
}

permits contains "deputy-write" if {
	using
	assistant
	"write" in facts.tags
}

obligations contains "approval" if {
	allow
	"deputy-untrusted" in permits
}

denies contains "deputy-exfiltration" if {
	using
	"external" in facts.tags
	not harmless
}

denies contains "deputy-one-call" if {
	using
	"external" in facts.tags
	"sensitive" in facts.tags
}

obligations contains "end_session" if "deputy-exfiltration" in denies

using if {
	facts.named
	input.action in {"tools/call", "resources/read"}
}

assistant if "assistant" in facts.roles

# Only the literal answer that nothing was read counts as such.
harmless if input.state.windows.read_sensitive == false

unspoilt if input.state.windows.read_untrusted == false
