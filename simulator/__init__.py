"""A small world of servers for demo, rehearsal and tests. It imports neither the application nor the agent,
so that a misread log format shows instead of agreeing with itself."""
