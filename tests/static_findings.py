"""`python -m tests.static_findings`: bandit over our code, against static_findings.toml."""

import json
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("agent", "runbook", "simulator", "upgrades", "verifier")


def known():
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["known"]
    return {(one["file"], one["rule"]): one["count"] for one in listed if len(one["reason"]) > 20}


def found():
    """(file, rule) -> the lines in which bandit finds something of medium or high severity."""
    command = [sys.executable, "-m", "bandit", "-r", *CODE, "-f", "json", "-q", "-ll"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)
    if told["errors"]:
        raise SystemExit(f"bandit could not read everything: {told['errors']}")
    lines = {}
    for one in told["results"]:
        lines.setdefault((one["filename"].removeprefix("./"), one["test_id"]), []).append(one["line_number"])
    return lines


def main():
    listed, lines = known(), found()
    wrong = [
        f"{file}: {rule} in lines {', '.join(map(str, places))}, {listed.get((file, rule), 0)} known"
        for (file, rule), places in sorted(lines.items())
        if len(places) != listed.get((file, rule), 0)
    ]
    wrong += [f"{file}: {rule} is listed and not found" for file, rule in sorted(set(listed) - set(lines))]
    if wrong:
        print("bandit finds what tests/static_findings.toml does not know:", *wrong, sep="\n  - ")
        return 1
    print(
        f"bandit: {sum(Counter(listed).values())} findings, each with its reason in tests/static_findings.toml."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
