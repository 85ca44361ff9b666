package tallystick.path_allow_list

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
	is_object(data.settings.agents)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "path-read" if {
	reading
	"file-reader" in facts.roles
	below(facts.server.read_roots, input.args.path)
}

permits contains "path-write" if {
	writing
	"file-writer" in facts.roles
	below(facts.server.write_roots, input.args.path)
}

denies contains "path-agent" if {
	guarded
	agent := data.settings.agents[input.principal.agent]
	not in_place(agent)
}

denies contains "path-closed" if {
	guarded
	closed := facts.server.closed
	not open_place(closed)
}

denies contains "path-destination" if {
	guarded
	input.args.destination
	not open_destination
}

reading if {
	facts.call
	"file-read" in facts.tags
}

writing if {
	facts.call
	"file-write" in facts.tags
}

guarded if reading

guarded if writing

# A path parameter holds the path and every folder above it.
below(roots, path) if {
	some root in roots
	root in path
}

in_place(agent) if below(agent.roots, input.args.path)

open_place(closed) if {
	path := input.args.folded_path
	is_array(closed)
	every folder in closed { not folder in path }
}

open_destination if below(facts.server.write_roots, input.args.destination)
