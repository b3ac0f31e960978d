package main

// commands is what wxproxy can do, in the order in which a newcomer meets it.
var commands = []entry{
	{"demo", "the whole thing in one process, with nothing to configure", newDemo},
	{"serve", "forward calls to WeChat, as the configuration says", newServe},
	{"sandbox", "the sandbox WeChat alone, to test one's own code against", newSandbox},
	{"check", "say all that is wrong with a configuration", newCheck},
	{"accounts", "list, show, refresh, forget, sync and import accounts of a running wxproxy", newAccounts},
	{"explain", "say what would become of a call, without making it", newExplain},
	{"key", "make the key of a new caller", newKey},
	{"health", "ask a running wxproxy whether it lives", newHealth},
	{"version", "version, commit, Go version", newVersion},
}
