package tallystick.bulk_export

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
	is_number(data.settings.most_rows)
	is_number(data.settings.approval_over)
	is_number(data.settings.rows_per_day)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "export-large" if {
	guarded
	exporter
	input.args.rows > data.settings.approval_over
}

permits contains "exporters" if {
	guarded
	exporter
}

obligations contains "approval" if {
	allow
	"export-large" in permits
}

denies contains "export-day" if {
	guarded
	not within_day
}

denies contains "export-limit" if {
	guarded
	not within_limit
}

denies contains "export-user" if {
	guarded
	not known_user
}

guarded if {
	facts.call
	"export" in facts.tags
}

exporter if "exporter" in facts.roles

within_day if input.state.windows.rows_day <= data.settings.rows_per_day

within_limit if {
	input.args.rows > 0
	is_number(most_rows)
	input.args.rows <= most_rows
}

most_rows := object.get(facts.tool, "most_rows", data.settings.most_rows)

known_user if is_string(input.principal.user)
