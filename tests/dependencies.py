"""`python -m tests.dependencies audit`: known holes of what requirements.txt pins. `… sbom FILE`: what that is.

An audit that could not ask anybody has found nothing and says so: it fails, as one that found something.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "requirements.txt"
SOURCES = ("pypi", "osv")
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ \\]+)((?:.*\\\n.*--hash=sha256:[0-9a-f]{64})+)", re.MULTILINE
)


def audit():
    """0: somebody was asked and knows of no hole. 1: holes. 2: nobody could be asked."""
    reasons = []
    for source in SOURCES:
        command = [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"]
        command += [
            "-r",
            str(PINS),
            "-s",
            source,
            "-f",
            "json",
            "--progress-spinner",
            "off",
            "--timeout",
            "15",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError):
            reasons.append(f"{source}: {(done.stderr.strip().splitlines() or ['no answer'])[-1][:200]}")
            continue
        holes = [
            (one["name"], one["version"], hole["id"]) for one in packages for hole in one.get("vulns", ())
        ]
        for hole in holes:
            print("  - {} {}: {}".format(*hole))
        print(f"{source}: {len(packages)} packages, {len(holes)} known holes.")
        return 1 if holes else 0
    print("No source of known holes could be asked, so NOTHING was audited:", *reasons, sep="\n  - ")
    print("Run this where one of these sources can be reached.")
    return 2


def components():
    """Each pinned package with its hashes."""
    for name, version, hashes in PIN.findall(PINS.read_text("utf-8")):
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, name.lower(), version),
            bom_ref=f"{name}=={version}",
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=one)
                for one in sorted(re.findall(r"[0-9a-f]{64}", hashes))
            ],
        )


def sbom(path):
    """Write the list as CycloneDX 1.6; how many packages it has."""
    bom = Bom(components=components())
    bom.metadata.component = Component(name="runbook", type=ComponentType.APPLICATION, bom_ref="runbook")
    bom.register_dependency(bom.metadata.component, list(bom.components))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2), "utf-8")
    return len(bom.components)


if __name__ == "__main__":
    if sys.argv[1:] == ["audit"]:
        sys.exit(audit())
    print(f"{sys.argv[2]}: {sbom(Path(sys.argv[2]))} packages.")
