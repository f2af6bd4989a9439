#!/usr/bin/env python3
"""Runs the commands of python-karborclient against `karbor serve`, and looks at what they print.

main.py OLD_CLIENT KARBOR
"""
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from service import Service, run_cases, wait_for  # noqa: E402
from shell import Client, expect  # noqa: E402

CONFIG = "[worker]\npoll-milliseconds = 100\nsweep-delay-seconds = 0\n"


def main():
    old, binary = sys.argv[1], sys.argv[2]
    home = Path(tempfile.mkdtemp(prefix="karbor-client-"))
    service = Service(binary, home / "state", CONFIG)
    client = Client(old, service)
    passed = failed = 0
    state = {}

    def provider():
        rows = client.table("provider-list")
        expect(rows[0][:2] == ["Id", "Name"], f"columns {rows[0]}")
        state["provider"] = next(row[0] for row in rows if row[1] == "Host Provider")
        expect("Host::Directory" in client.run("provider-show", state["provider"]), "its schemas are shown")

    def protectable():
        expect(any("Host::Directory" in row for row in client.table("protectable-list")), "the type is listed")
        expect(client.fields("protectable-show", "Host::Application")["name"] == "Host::Application", "the type is shown")
        rows = client.table("protectable-list-instances", "Host::Directory")
        state["resource"] = next(row[0] for row in rows if "web" in row)
        shown = client.run("protectable-show-instance", "Host::Directory", state["resource"])
        expect("web" in shown, "the instance is shown")

    def plan():
        made = client.fields("plan-create", "nightly", state["provider"], f"{state['resource']}=Host::Directory=web")
        state["plan"] = made["id"]
        expect(made["status"] == "suspended", f"status {made['status']}")
        expect(any(state["plan"] in row for row in client.table("plan-list")), "it is listed")
        expect(client.fields("plan-show", state["plan"])["name"] == "nightly", "it is shown")
        client.run("plan-update", state["plan"], "--name", "weekly")
        expect(client.fields("plan-show", state["plan"])["name"] == "weekly", "it is renamed")

    def checkpoint():
        made = client.fields("checkpoint-create", state["provider"], state["plan"])
        state["checkpoint"] = made["id"]

        def available():
            status = client.fields("checkpoint-show", state["provider"], state["checkpoint"])["status"]
            expect(status in ("protecting", "available"), f"status {status}")
            return status == "available"
        wait_for("the checkpoint", available)
        rows = client.table("checkpoint-list", state["provider"])
        expect(any(state["checkpoint"] in row for row in rows), "it is listed")
        expect(re.search(r"20\d\d-\d\d-\d\d", str(rows)), "with its date")
        client.run("checkpoint-reset-state", state["provider"], state["checkpoint"], "--available")

    def restore():
        shutil.rmtree(home / "web")
        made = client.fields("restore-create", state["provider"], state["checkpoint"], "--parameters-json",
                             '{"Host::Directory": {"in_place": true}}')
        state["restore"] = made["id"]

        def success():
            shown = client.fields("restore-show", state["restore"])
            expect(shown["status"] in ("in_progress", "success"), f"status {shown}")
            return shown["status"] == "success"
        wait_for("the restore", success)
        expect((home / "web" / "index.html").read_text() == "hello\n", "the bytes are back")
        expect(any(state["restore"] in row for row in client.table("restore-list")), "it is listed")

    def verification():
        made = client.fields("verification-create", state["provider"], state["checkpoint"])

        def success():
            shown = client.fields("verification-show", made["id"])
            expect(shown["status"] in ("in_progress", "success"), f"status {shown}")
            return shown["status"] == "success"
        wait_for("the verification", success)
        expect(any(made["id"] in row for row in client.table("verification-list")), "it is listed")

    def logs():
        rows = client.table("operationlog-list")
        expect(len(rows) >= 4, f"{len(rows)} rows")
        row = next(row for row in rows if "protect" in row)
        expect(client.fields("operationlog-show", row[0])["checkpoint_id"] == state["checkpoint"], "it is shown")

    def triggers():
        properties = "format=crontab,pattern=0 3 * * *,window=900"
        made = client.fields("trigger-create", "daily", "time", properties)
        state["trigger"] = made["id"]
        expect(any(made["id"] in row for row in client.table("trigger-list")), "it is listed")
        client.run("trigger-update", made["id"], "--name", "every-night")
        expect(client.fields("trigger-show", made["id"])["name"] == "every-night", "it is renamed")

    def scheduled():
        definition = f"provider_id={state['provider']},plan_id={state['plan']}"
        made = client.fields("scheduledoperation-create", "backup", "protect", state["trigger"], definition)
        expect(any(made["id"] in row for row in client.table("scheduledoperation-list")), "it is listed")
        expect(client.fields("scheduledoperation-show", made["id"])["name"] == "backup", "it is shown")
        client.run("scheduledoperation-delete", made["id"])
        client.run("trigger-delete", state["trigger"])

    def quotas():
        project = service.project
        expect(client.fields("quota-show", "--tenant", project)["plans"] == "50", "the default quota")
        client.run("quota-update", project, "--plans", "60")
        expect(client.fields("quota-show", "--tenant", project)["plans"] == "60", "the new quota")
        client.run("quota-defaults", "--tenant", project)
        client.run("quota-class-show", "default")
        client.run("quota-class-update", "default", "--plans", "70")

    def services():
        client.run("service-list")

    def own_client():
        """The commands of our own client that the rest of the tests does not use."""
        def karbor(*words):
            text = service.karbor("-o", "json", *words).stdout
            return json.loads(text) if text.strip() else None
        made = karbor("trigger", "create", "own", "--crontab", "0 4 * * *", "--window", 900)
        expect(made["properties"]["window"] == 900, f"{made}")
        expect(karbor("trigger", "update", "own", "--window", 1000)["properties"]["window"] == 1000, "it is changed")
        expect(any(one["name"] == "own" for one in karbor("trigger", "list")), "it is listed")
        scheduled = karbor("schedule", "create", "keep", state["plan"], "own", "--max-backups", 3)
        expect(scheduled["operation_type"] == "retention_protect", f"{scheduled}")
        expect(karbor("schedule", "show", "keep")["id"] == scheduled["id"], "it is shown")
        expect(len(karbor("schedule", "list")) == 1, "it is listed")
        changed = karbor("schedule", "update", "keep", "--keep-daily", 7, "--keep-minimum", 2, "--retries", 0, "--priority", -5)
        definition = {"plan_id": state["plan"], "provider_id": state["provider"], "keep_daily": 7, "keep_minimum": 2}
        expect(changed["operation_definition"] == definition, f"the definition is another: {changed}")
        expect((changed["retries"], changed["priority"], changed["catch_up"]) == (0, -5, None), f"{changed}")
        verify = karbor("schedule", "create", "look", state["plan"], "own", "--type", "verify", "--read", 10,
                        "--catch-up", "skip", "--jitter", 600, "--paused")
        expect((verify["operation_type"], verify["operation_definition"]["read"]) == ("verify", "10"), f"{verify}")
        expect((verify["catch_up"], verify["jitter_seconds"], verify["enabled"]) == ("skip", 600, False), f"{verify}")
        refused = service.karbor("schedule", "create", "no", state["plan"], "own", "--type", "verify", "--max-backups", 3, check=False)
        expect(refused.returncode and "--type retention-protect" in refused.stderr, f"{refused.stderr}")
        karbor("schedule", "delete", "look")
        karbor("schedule", "delete", "keep")
        karbor("trigger", "delete", "own")
        logs = karbor("log", "list", "--checkpoint", state["checkpoint"])
        expect(karbor("log", "show", logs[0]["id"])["checkpoint_id"] == state["checkpoint"], f"{logs}")
        expect(karbor("verification", "create", state["checkpoint"], "--mode", "sample", "--sample-percent", 50, "--wait"), "it is whole")
        account = karbor("bank-account", "show", "default")
        expect(account["usage"]["checkpoints"] == 1, f"{account}")
        expect(karbor("bank-account", "set", "default", "--quota-bytes", 10**12)["quota_bytes"] == 10**12, "the quota")
        expect(karbor("bank-account", "set", "default", "--no-quota")["quota_bytes"] is None, "no quota")
        expect([one["bank"] for one in karbor("bank-account", "list", "--all")] == ["default"], "it is listed")
        expect(karbor("quota", "defaults", service.project)["plans"] == 70, "the defaults are those of the class")
        karbor("quota", "delete", service.project)
        expect(karbor("quota-class", "set", "gold", "--checkpoints", 7)["checkpoints"] == 7, "the class")
        expect(karbor("quota-class", "show", "gold")["checkpoints"] == 7, "the class is shown")
        engine = next(one["id"] for one in karbor("service", "list") if one["binary"] == "karbor-operationengine")
        expect(karbor("service", "disable", engine, "--reason", "moving")["disabled_reason"] == "moving", "it is off")
        expect(karbor("service", "enable", engine)["status"] == "enabled", "it is on")
        refused = service.karbor("checkpoint", "copy", state["plan"], check=False)
        expect(refused.returncode == 1 and "copy_to" in refused.stderr, f"{refused.stderr}")

    def deletion():
        client.run("checkpoint-delete", state["provider"], state["checkpoint"])

        def deleted():
            status = client.fields("checkpoint-show", state["provider"], state["checkpoint"])["status"]
            return status == "deleted"
        wait_for("the checkpoint to be deleted", deleted)
        client.run("plan-delete", state["plan"])
        expect(not any(state["plan"] in row for row in client.table("plan-list")), "it is gone")

    try:
        (home / "web").mkdir()
        (home / "web" / "index.html").write_text("hello\n")
        service.start()
        service.inventory(f'[[directory]]\nname = "web"\nproject = "{service.project}"\npath = "{home}/web"\n')
        wait_for("the inventory", lambda: service.ask("GET", "/protectables/Host::Directory/instances")["instances"])
        tests = (provider, protectable, plan, checkpoint, restore, verification, logs, triggers, scheduled, quotas, services, own_client, deletion)
        passed, failed = run_cases((test.__name__, test) for test in tests)
    finally:
        service.stop()
        if failed:
            print(service.log_tail(30))
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
