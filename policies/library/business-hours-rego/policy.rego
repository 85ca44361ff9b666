package tallystick.business_hours

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
	is_string(data.settings.zone)
	is_array(data.settings.holidays)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "hours-staff" if {
	guarded
	"staff" in facts.roles
}

permits contains "hours-on-call" if {
	guarded
	on_call
	not open
}

obligations contains "approval" if {
	allow
	"hours-on-call" in permits
}

denies contains "hours-closed" if {
	guarded
	not on_call
	not opening_hours
}

denies contains "hours-holiday" if {
	guarded
	not on_call
	not working_day
}

denies contains "hours-second-factor" if {
	guarded
	not second_factor
}

denies contains "hours-zone" if {
	guarded
	not right_zone
}

guarded if {
	facts.call
	"office-hours" in facts.tags
}

on_call if "on-call" in facts.roles

second_factor if {
	facts.proved
	input.principal.mfa == true
}

right_zone if input.time.zone == data.settings.zone

minute := (input.time.hour * 60) + input.time.minute

opening_hours if {
	input.time.weekday in data.settings.weekdays
	data.settings.opens_minute <= minute
	minute < data.settings.closes_minute
}

# Undefined, and so no working day, if the list of holidays is missing.
working_day if {
	every holiday in data.settings.holidays { holiday != input.time.local_date }
}

open if {
	opening_hours
	working_day
}
