package main

// commands is what wxproxy can do, in the order in which a newcomer meets it.
var commands = []entry{
	{"demo", "the whole thing in one process, with nothing to configure", newDemo},
	{"serve", "forward calls to WeChat, as the configuration says", newServe},
	{"sandbox", "the sandbox WeChat alone, to test one's own code against", newSandbox},
	{"check", "say all that is wrong with a configuration", newCheck},
	{"health", "ask a running wxproxy whether it lives", newHealth},
	{"version", "version, commit, Go version", newVersion},
}
