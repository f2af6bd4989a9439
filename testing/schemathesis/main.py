#!/usr/bin/env python3
"""Runs schemathesis against `karbor serve`, for a bounded time.

main.py SCHEMATHESIS KARBOR SECONDS
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from service import Service  # noqa: E402

NOOP = "b766f37c-d011-4026-8228-28730d734a3f"
CONFIG = """
[worker]
poll-milliseconds = 100
[quota]
plans = -1
[declared]
file = "{things}"
"""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main():
    program, binary, seconds = sys.argv[1:4]
    home = Path(tempfile.mkdtemp(prefix="karbor-schemathesis-"))
    service = Service(binary, home / "state", CONFIG.format(things=HERE.parent / "golden" / "things.json"))
    try:
        service.start()
        # Some things to be found.
        volume = {"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "v"}
        plan = {"name": "p", "provider_id": NOOP, "parameters": {}, "resources": [volume]}
        made = service.ask("POST", "/plans", {"plan": plan})["plan"]["id"]
        checkpoint = service.ask("POST", f"/providers/{NOOP}/checkpoints", {"checkpoint": {"plan_id": made}})
        service.wait_operation(checkpoint["checkpoint"]["id"])
        connection = service.connection()
        base = connection["url"].split("/v1/")[0]
        config = home / "schemathesis.toml"
        config.write_text(f'[parameters]\n"path.project" = "{connection["project_id"]}"\n"path.provider" = "{NOOP}"\n')
        command = [program, "--config-file", config, "run", f"{base}/openapi.json", "--checks", CHECKS,
                   "--max-time", seconds, "-H", f"X-Auth-Token: {connection['token']}", "--continue-on-failure",
                   "--suppress-health-check", "all", "--workers", "2", "--warnings", "off", "--seed", "1", "--no-color"]
        done = subprocess.run(command, cwd=home, timeout=float(seconds) + 240)
        status = done.returncode
        log = (service.state / "karbor.log").read_text()
        if "panicked" in log or " ERROR " in log:
            print("\n".join(line for line in log.splitlines() if "panicked" in line or " ERROR " in line)[:5000])
            status = status or 1
    finally:
        service.stop()
        shutil.rmtree(home, ignore_errors=True)
    print(f"{int(status == 0)} passed, {int(status != 0)} failed")
    sys.exit(status != 0)


if __name__ == "__main__":
    main()
