#!/usr/bin/env python3
"""Two sites that share a bank, copies into a second bank, and a database that is lost.

main.py KARBOR
"""
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from service import Failed, Service, run_cases, wait_for  # noqa: E402

NEAR, FAR = "6b617262-6f72-4000-8000-000000000001", "6b617262-6f72-4000-8000-000000000002"
CONFIG = """
[worker]
poll-milliseconds = 100
sweep-delay-seconds = 0
[[bank]]
name = "near"
url = "{home}/near"
[[bank]]
name = "far"
url = "{home}/far"
[[provider]]
id = "{near}"
name = "Near"
bank = "near"
plugins = ["host"]
copy-to = "{far}"
[[provider]]
id = "{far}"
name = "Far"
bank = "far"
plugins = ["host"]
"""


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Sites:
    def __init__(self, binary):
        self.binary = binary
        self.home = Path(tempfile.mkdtemp(prefix="karbor-sites-"))
        self.web = self.home / "web"
        self.web.mkdir()
        (self.web / "index.html").write_text("hello\n")
        (self.web / "data").write_bytes(os.urandom(3_000_000))
        self.bytes = (self.web / "data").read_bytes()
        self.services = []

    def site(self, name, like=None):
        config = CONFIG.format(home=self.home, near=NEAR, far=FAR)
        service = Service(self.binary, self.home / name, config)
        if like:
            for file in ("master.key", "identity.toml"):
                shutil.copy(like.state / file, service.state / file)
            # Nobody answers there: the service writes its own address when it listens.
            known = like.connection() | {"url": f"http://127.0.0.1:1/v1/{like.project}"}
            (service.state / "client.json").write_text(json.dumps(known))
            (service.state / "client.json").chmod(0o600)
        service.start()
        service.inventory(f'[[directory]]\nname = "web"\nproject = "{service.project}"\npath = "{self.web}"\n')
        path = "/protectables/Host::Directory/instances"
        service.resource = wait_for("the inventory", lambda: service.ask("GET", path)["instances"])[0]["id"]
        self.services.append(service)
        return service

    def close(self):
        for service in self.services:
            service.stop()
        shutil.rmtree(self.home, ignore_errors=True)


def checkpoints(service, provider=NEAR):
    return service.ask("GET", f"/providers/{provider}/checkpoints")["checkpoints"]


def protect(service, plan):
    made = service.ask("POST", f"/providers/{NEAR}/checkpoints", {"checkpoint": {"plan_id": plan}})["checkpoint"]["id"]
    ended = service.wait_operation(made)
    expect(ended["state"] == "succeeded", f"protect: {ended}")
    return made


def restore(sites, service, provider, checkpoint):
    """Loses the directory and brings it back."""
    shutil.rmtree(sites.web)
    body = {"restore": {"provider_id": provider, "checkpoint_id": checkpoint,
                        "parameters": {"Host::Directory": {"in_place": True}}}}
    made = service.ask("POST", "/restores", body)["restore"]["operation_id"]
    ended = service.wait_operation(made)
    expect(ended["state"] == "succeeded", f"restore: {ended}")
    expect((sites.web / "data").read_bytes() == sites.bytes, "the bytes are back")


def main():
    sites = Sites(sys.argv[1])
    passed = failed = 0
    state = {}

    def the_first_site_protects():
        site = state["first"] = sites.site("first")
        plan = {"name": "web", "provider_id": NEAR, "parameters": {},
                "resources": [{"id": site.resource, "type": "Host::Directory", "name": "web"}]}
        state["plan"] = site.ask("POST", "/plans", {"plan": plan})["plan"]["id"]
        state["one"], state["two"] = protect(site, state["plan"]), protect(site, state["plan"])

    def the_second_site_lists_shows_and_restores():
        site = state["second"] = sites.site("second", state["first"])
        shown = site.ask("GET", f"/providers/{NEAR}/checkpoints/{state['one']}")["checkpoint"]
        expect(shown["status"] == "available" and shown["size"]["logical_bytes"] > 3_000_000, f"it is shown: {shown}")
        listed = {one["id"] for one in checkpoints(site)}
        expect(listed == {state["one"], state["two"]}, f"both are listed: {listed}")
        here = {one["id"]: one for one in checkpoints(state["first"])}
        there = {one["id"]: one for one in checkpoints(site)}
        for id in here:
            for name in ("project_id", "protection_plan", "resource_graph", "extra_info", "created_at"):
                expect(here[id][name] == there[id][name], f"{name} of {id}: {here[id][name]} and {there[id][name]}")
        restore(sites, site, NEAR, state["one"])
        status, _ = site.call("GET", f"/providers/{FAR}/checkpoints/{state['one']}")
        expect(status == 404, f"another provider answers {status}")

    def what_one_site_deletes_is_gone_on_the_other():
        gone = state["first"].ask("DELETE", f"/providers/{NEAR}/checkpoints/{state['two']}")["operation_id"]
        state["first"].wait_operation(gone)
        wait_for("the second site to notice", lambda: len(checkpoints(state["second"])) == 1)
        shown = state["second"].ask("GET", f"/providers/{NEAR}/checkpoints/{state['two']}")["checkpoint"]
        expect(shown["status"] == "deleted", f"it is {shown['status']}")

    def a_bank_holds_what_it_may_and_no_more():
        site = state["first"]
        path = "/bank_accounts/near"

        def quota(bytes):
            return site.ask("PUT", path, {"bank_account": {"quota_bytes": bytes}})
        usage = site.ask("GET", path)["bank_account"]["usage"]
        expect(usage["checkpoints"] == 1 and usage["stored_bytes"] > 2_900_000, f"{usage}")
        expect(usage["logical_bytes"] >= usage["deduplicated_bytes"] >= 0, f"{usage}")
        quota(1)
        status, answer = site.call("POST", f"/providers/{NEAR}/checkpoints", {"checkpoint": {"plan_id": state["plan"]}})
        expect(status == 413 and "quota of 1 bytes" in answer["overLimit"]["message"], f"{status} {answer}")
        quota(usage["total_bytes"] + 1_000_000)
        (sites.web / "more").write_bytes(os.urandom(3_000_000))
        made = site.ask("POST", f"/providers/{NEAR}/checkpoints", {"checkpoint": {"plan_id": state["plan"]}})
        ended = site.wait_operation(made["checkpoint"]["id"])
        expect(ended["state"] == "failed" and "quota" in ended["reason"], f"{ended}")
        site.wait_operation(site.ask("DELETE", f"/providers/{NEAR}/checkpoints/{made['checkpoint']['id']}")["operation_id"])
        (sites.web / "more").unlink()
        quota(None)

    def a_copy_outlives_the_first_bank():
        site = state["first"]
        wish = {"copy": {"plan_id": state["plan"]}}
        made = site.ask("POST", f"/providers/{NEAR}/checkpoints/action", wish)["copy"]["checkpoint_id"]
        expect([pair["checkpoint_protect_id"] for pair in made] == [state["one"]], f"one is copied: {made}")
        state["copy"] = made[0]["checkpoint_copy_id"]
        ended = site.wait_operation(state["copy"])
        expect(ended["state"] == "succeeded", f"copy: {ended}")
        again = site.ask("POST", f"/providers/{NEAR}/checkpoints/action", wish)["copy"]["checkpoint_id"]
        expect(again == [], f"it is not copied again: {again}")
        (sites.home / "near").rename(sites.home / "lost")
        restore(sites, site, FAR, state["copy"])
        (sites.home / "lost").rename(sites.home / "near")

    def a_lost_database_is_rebuilt_from_the_banks():
        site = state["first"]
        site.stop()
        for file in site.state.glob("karbor.db*"):
            file.unlink()
        done = site.karbor("--state-dir", site.state, "-o", "json", "db", "rebuild", "--config", site.state / "karbor.toml")
        expect('"added": 2' in done.stdout, f"it says {done.stdout}")
        site.start()
        expect([one["id"] for one in checkpoints(site)] == [state["one"]], "the checkpoint is back")
        expect([one["id"] for one in checkpoints(site, FAR)] == [state["copy"]], "and the copy")
        quota = site.ask("GET", f"/quotas/{site.project}/detail")["quota"]["checkpoints"]["in_use"]
        expect(quota == 2, f"both are counted: {quota}")
        restore(sites, site, NEAR, state["one"])

    def the_database_is_looked_after():
        site = state["first"]
        words = ("--state-dir", site.state, "-o", "json", "db")
        version = site.karbor(*words, "version").stdout
        expect(site.karbor(*words, "sync").stdout == version, "it is up to date")
        expect("plans" in site.karbor(*words, "purge", 30).stdout, "a purge tells what it removed")
        refused = site.karbor(*words, "import", f"sqlite:{sites.home}/nothing.db", check=False)
        expect(refused.returncode == 1 and "there is no file" in refused.stderr, refused.stderr)

    tests = (the_first_site_protects, the_second_site_lists_shows_and_restores, what_one_site_deletes_is_gone_on_the_other,
             a_bank_holds_what_it_may_and_no_more, a_copy_outlives_the_first_bank, a_lost_database_is_rebuilt_from_the_banks, the_database_is_looked_after)
    try:
        passed, failed = run_cases((test.__name__, test) for test in tests)
    finally:
        if failed:
            for service in sites.services:
                print(service.log_tail(30))
        sites.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
