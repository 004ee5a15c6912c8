"""Who takes part in the walks: with every role, some barred by what they did, and a crew that keeps out of trouble."""

from upgrades.domain.run_events import Actor

OLGA = Actor("1", "Olga", roles=("operator",))
OTTO = Actor("2", "Otto", roles=("operator",))
ANNA = Actor("3", "Anna", roles=("approver",))
BO = Actor("4", "Bo", roles=("approver", "operator"))
RUTH = Actor("runbook", "Ruth", roles=("approver", "operator"))  # wrote the procedures
VIC = Actor("6", "Vic", roles=("auditor",))
DORA = Actor("7", "Dora", roles=("approver", "group:database"))
NED = Actor("8", "Ned", roles=("group:network", "operator"))
TESS = Actor("9", "Tess", roles=("group:database", "group:network", "operator"))
DEV = Actor("10", "Dev", roles=("auditor",), stands_for=(TESS, RUTH, DORA))

PEOPLE = (OLGA, OTTO, ANNA, BO, RUTH, VIC, DORA, NED, TESS, DEV)
OPERATORS = (OLGA, OTTO, BO, NED, TESS)

# When the faults have stopped, these bring the run to its end; they have no part in anything before.
ZITA = Actor("20", "Zita", roles=("operator",))
ZOE = Actor("21", "Zoe", roles=("approver", "group:database", "group:network"))
ZACK = Actor("22", "Zack", roles=("approver", "group:database", "group:network"))
ZARA = Actor("23", "Zara", roles=("approver", "group:database", "group:network"))
SIGNERS = (ZOE, ZACK, ZARA)
AUDITOR = Actor("24", "Zeno", roles=("auditor",))
