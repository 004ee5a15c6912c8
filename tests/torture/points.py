"""The crash points as the tests know them, and which program dies at each; the code must have exactly these."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

WEB, WORKER, SIGNER = "web", "worker", "checkpoints"
POINTS = {
    # a person's act
    "act.before": WEB,
    "act.before-receipt": WEB,
    "act.before-commit": WEB,
    "act.committed": WEB,
    "refusal.before-record": WEB,
    "refusal.recorded": WEB,
    "bell.before-publish": WEB,
    "bell.published": WEB,
    # a run is started
    "start.row-written": WEB,
    "register.before": WEB,
    "register.after": WEB,
    "start.receipted": WEB,
    "claims.taken": WEB,
    "start.committed": WEB,
    # a file is attached
    "evidence.before-file": WEB,
    "evidence.file-written": WEB,
    "evidence.row-written": WEB,
    "evidence.committed": WEB,
    # events are appended, by whomever
    "append.before": WORKER,
    "append.after": WORKER,
    "project.before-summary": WORKER,
    "append.projected": WORKER,
    "append.effects-applied": WORKER,
    "announce.before-commit": WORKER,
    "claims.released": WORKER,
    # a worker advances a run
    "advance.before": WORKER,
    "advance.decided": WORKER,
    "advance.before-commit": WORKER,
    "advance.committed": WORKER,
    "begin.marked": WORKER,
    "begin.before-commit": WORKER,
    "begin.committed": WORKER,
    # a worker follows agents
    "lease.before-commit": WORKER,
    "lease.taken": WORKER,
    "lease.taken-over": WORKER,
    "lease.before-release": WORKER,
    "news.answered": WORKER,
    "news.cursor-moved": WORKER,
    "news.lines-stored": WORKER,
    "news.process-stored": WORKER,
    "news.committed": WORKER,
    "news.runs-advanced": WORKER,
    "look.committed": WORKER,
    "trouble.committed": WORKER,
    "probe.answered": WORKER,
    "loop.handed-over": WORKER,
    # tasks, before their acknowledgement
    "task.advance.taken": WORKER,
    "task.advance.before-ack": WORKER,
    "task.poll.taken": WORKER,
    "task.poll.before-ack": WORKER,
    "task.look.before-publish": WORKER,
    "task.look.published": WORKER,
    "task.tick.agents-seen": WORKER,
    "task.tick.runs-advanced": WORKER,
    "task.tick.before-ack": WORKER,
    # checkpoints leave the system
    "checkpoint.signed": SIGNER,
    "checkpoint.before-commit": SIGNER,
    "checkpoint.committed": SIGNER,
    "checkpoint-file.half-written": SIGNER,
    "checkpoint-file.before-sync": SIGNER,
    "delivery.sent": SIGNER,
    "delivery.noted": SIGNER,
}
# While one loop lives it takes over what the others leave, and nobody rings for another.
WHEN_NO_LOOP_LIVES = {"task.look.before-publish", "task.look.published"}


def in_the_code():
    """Every crash point of the code, read from its syntax trees: (name, file and line)."""
    found = []
    for path in sorted((ROOT / "upgrades").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), (
                    f"{path}:{node.lineno}: the name must be a plain text"
                )
                found.append((argument.value, f"{path.relative_to(ROOT)}:{node.lineno}"))
    return found
