# What a call is about, as every bundle of the library reads it; the rules stand in policy.rego.
package tallystick.facts

# Roles of the caller: those that it brings, and those that settings.roles gives to who brings one of a list.
roles contains role if some role in input.principal.roles

roles contains role if {
	some role, holders in data.settings.roles
	some holder in holders
	holder in input.principal.roles
}

# Tags of what is called: of the request, of the server, of the tool, and those that settings.tags derives from them.
stated contains tag if some tag in input.resource.tags

stated contains tag if some tag in server.tags

stated contains tag if some tag in tool.tags

tags contains tag if some tag in stated

tags contains tag if {
	some tag, signs in data.settings.tags
	some sign in signs
	sign in stated
}

server := data.settings.servers[input.resource.server]

tool := server.tools[input.resource.name]

# The data of every bundle are of their types; each bundle's policy says the same of its own.
sound_data if {
	is_object(data.settings.roles)
	is_object(data.settings.tags)
	is_object(data.settings.servers)
}

named if is_string(input.resource.name)

call if {
	input.action == "tools/call"
	named
}

proved if input.principal.authn != "none"

# What every agent may do that has proved who it is.
discovery if {
	input.action in {
		"server/discover",
		"ping",
		"tools/list",
		"notifications/cancelled",
		"notifications/progress",
	}
	not named
	proved
}

# The protocol's own conversation: a session with its stream, and what its server reports.
protocol if {
	input.action in {
		"initialize",
		"notifications/initialized",
		"transport/listen",
		"transport/terminate",
		"logging/setLevel",
		"notifications/roots/list_changed",
		"notifications/message",
		"notifications/tools/list_changed",
		"notifications/prompts/list_changed",
		"notifications/resources/list_changed",
	}
	not named
	proved
}
