package tallystick.amount_bounds

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
	is_array(data.settings.currencies)
	is_number(data.settings.clerk_limit)
	is_number(data.settings.manager_limit)
	is_number(data.settings.approval_over)
	is_object(data.settings.floors)
	is_object(data.settings.ceilings)
}

permits contains "discovery" if facts.discovery

permits contains "protocol" if facts.protocol

permits contains "amount-clerk" if {
	payment
	"payment-clerk" in facts.roles
}

permits contains "amount-manager" if {
	payment
	manager
}

permits contains "amount-second-person" if {
	payment
	manager
	input.args.amount > data.settings.approval_over
}

obligations contains "approval" if {
	allow
	"amount-second-person" in permits
}

permits contains "price-setters" if {
	pricing
	"price-setter" in facts.roles
}

denies contains "amount-currency" if {
	payment
	not known_currency
}

denies contains "amount-limit" if {
	payment
	not within_limit
}

denies contains "price-ceiling" if {
	pricing
	not below_ceiling
}

denies contains "price-floor" if {
	pricing
	not above_floor
}

payment if {
	facts.call
	"payment" in facts.tags
}

pricing if {
	facts.call
	"pricing" in facts.tags
}

manager if "payment-manager" in facts.roles

known_currency if input.args.currency in data.settings.currencies

limit := data.settings.manager_limit if manager

limit := data.settings.clerk_limit if not manager

within_limit if {
	input.args.amount > 0
	input.args.amount <= limit
}

below_ceiling if {
	ceiling := data.settings.ceilings[input.args.sku]
	is_number(ceiling)
	input.args.highest_price <= ceiling
}

above_floor if {
	floor := data.settings.floors[input.args.sku]
	is_number(floor)
	input.args.lowest_price >= floor
}
