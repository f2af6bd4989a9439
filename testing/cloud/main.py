#!/usr/bin/env python3
"""The sample application of a cloud, from end to end: protected, lost, brought back, compared; as users without rights.

  main.py KARBOR [CASE...]

The test cloud must be up (testing/devcloud/up); the projects `demo` and `demo2` are emptied before and after.
"""
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import application  # noqa: E402
import blocks  # noqa: E402
import ceph  # noqa: E402
from apis import DIRECTORY, KEYSTONE, PASSWORD, Cloud  # noqa: E402
from describe import admin, describe, differences, holdings, left_over, no_trust_is_left  # noqa: E402
from service import Failed, run_cases  # noqa: E402
from deployment import Karbor, Site  # noqa: E402

# Only an administrator may choose a floating address: the restored one is another.
ITS_OWN = ("/floating addresses[0]/address ",)
MIB = 1 << 20


def expect(condition, what):
    if not condition:
        raise Failed(what)


def expect_same(one, two, *but):
    found = [line for line in differences(one, two) if not line.startswith(ITS_OWN + but)]
    expect(not found, "these differ:\n    " + "\n    ".join(found))


def asked_for(kind="volumes"):
    """Counts how many Cinder was asked to make, by anybody."""
    text = (DIRECTORY / "log" / "cinder-api.log").read_text(errors="replace")
    return len(re.findall(rf'"POST /\S+/{kind} HTTP', text))


def objects(cloud, container):
    """Returns the names of the objects in a container of Swift."""
    _, text = cloud.call("GET", "object-store", f"/{container}?format=json")
    return [one["name"] for one in json.loads(text)]


class Story:
    """What the cases do one after the other, each with what the ones before it have made."""

    def __init__(self, binary):
        self.site = Site(binary)
        self.demo, self.other = Cloud("demo"), Cloud("demo2")
        self.karbor, self.elsewhere = Karbor(self.demo), Karbor(self.other)
        self.seconds = {}

    def holdings(self):
        return holdings(self.demo, self.other)

    def timed(self, what, id):
        begun = time.monotonic()
        operation = self.karbor.succeed(id)
        print(f"       {what}: {time.monotonic() - begun:.1f} s", flush=True)
        return operation

    def the_application_is_built(self):
        self.site.start()
        application.remove(self.demo)
        application.remove(self.other)
        self.volumes = application.build(self.demo)
        self.before = describe(self.demo)
        self.held = self.holdings()
        self.files = self.karbor.provider("Files")

    def what_there_is_is_listed_with_its_dependents(self):
        kinds = {one for one in self.karbor.ask("GET", "/protectables")}
        wanted = {"OS::Keystone::Project", "OS::Nova::Server", "OS::Cinder::Volume", "OS::Glance::Image", "OS::Neutron::Network", "OS::Manila::Share"}
        expect(wanted <= kinds, f"types are missing: {wanted - kinds}")
        volumes = self.karbor.ask("GET", "/protectables/OS::Cinder::Volume/instances")
        expect({one["id"] for one in volumes} == set(self.volumes.values()), f"the volumes are {volumes}")
        shown = self.karbor.ask("GET", f"/protectables/OS::Keystone::Project/instances/{self.demo.project}")
        below = {one["type"] for one in shown["dependent_resources"]}
        expect(wanted - {"OS::Keystone::Project"} <= below, f"below the project there are {below}")

    def the_project_is_protected(self):
        self.plan = self.karbor.project_plan(self.files)
        asked = asked_for()
        self.first = self.karbor.protect(self.files, self.plan)
        self.timed("first protect", self.first)
        expect(asked_for() == asked, "the snapshots are read in place, without temporary volumes")
        shown = self.karbor.checkpoint(self.files, self.first)
        expect(shown["status"] == "available", f"the checkpoint is {shown['status']}")
        for id in self.volumes.values():
            expect(id in shown["resource_graph"], f"volume {id} is in the graph")
        expect_same(self.before, describe(self.demo))
        self.nothing_is_left()

    def nothing_is_left(self):
        # The snapshot of a share belongs to the checkpoint.
        left = left_over(self.held, self.holdings(), ("share snapshot",))
        expect(not left, "; ".join(left))

    def the_second_day_moves_what_changed(self):
        with open(blocks.file_of(self.volumes["shop-db1"]), "r+b") as file:
            file.seek(700 * MIB)
            file.write(os.urandom(2 * MIB))
        self.before = describe(self.demo)
        self.second = self.karbor.protect(self.files, self.plan)
        self.timed("second protect", self.second)
        size = self.karbor.checkpoint(self.files, self.second)["size"]
        expect(size["new_bytes"] < 12 * MIB, f"2 MiB changed, and it added {size}")
        self.nothing_is_left()

    def nobody_else_reaches_it(self):
        path = f"/providers/{self.files}/checkpoints/{self.second}"
        for user in (self.other, Cloud("reader")):
            karbor = Karbor(user)
            if user is self.other:
                status, _ = karbor.refused("GET", path)
                expect(status in (403, 404), f"another project's checkpoint answers {status}")
                status, _ = karbor.refused("GET", f"/plans/{self.plan}")
                expect(status == 404, f"another project's plan answers {status}")
                mine = karbor.ask("GET", "/protectables/OS::Cinder::Volume/instances")
                expect(not mine, f"another project sees {mine}")
            wish = {"checkpoint": {"plan_id": self.plan}}
            status, _ = karbor.refused("POST", f"/providers/{self.files}/checkpoints", wish)
            expect(status in (403, 404), f"{user.user} may protect: {status}")

    def a_verification_reads_every_byte(self):
        wish = {"verification": {"provider_id": self.files, "checkpoint_id": self.second, "parameters": {}}}
        self.timed("verification", self.karbor.ask("POST", "/verifications", wish)["id"])

    def a_dry_run_shows_what_would_be_made(self):
        made = self.karbor.restore(self.files, self.second, dry_run=True)
        plan = self.karbor.succeed(made["operation_id"])["result"]["plan"]
        kinds = {one["type"] for one in plan if one["actions"]}
        wanted = {"OS::Nova::Server", "OS::Cinder::Volume", "OS::Glance::Image", "OS::Neutron::Network", "OS::Manila::Share"}
        expect(wanted <= kinds, f"the plan has nothing for {wanted - kinds}")
        self.nothing_is_left()

    def what_was_lost_comes_back(self):
        application.lose(self.demo)
        self.empty = self.holdings()
        made = self.karbor.restore(self.files, self.second)["operation_id"]
        self.timed("restore", made)
        expect_same(self.before, describe(self.demo))
        left = left_over(self.empty, self.holdings(), ("server", "volume", "image", "share", "port", "network", "router", "attachment",
                                                  "security group", "floating address"))
        expect(not left, "; ".join(left))

    def a_restore_that_failed_is_undone_or_resumed(self):
        application.lose(self.demo)
        quota = f"/os-quota-sets/{self.demo.project}"
        admin().ask("PUT", "volumev3", quota, {"quota_set": {"volumes": 2}})
        try:
            made = self.karbor.restore(self.files, self.second, dry_run=True)
            plan = self.karbor.succeed(made["operation_id"])["result"]["plan"]
            told = [text for one in plan if one["type"] == "OS::Cinder::Volume" for text in one["problems"]]
            needed = f"needs {len(self.volumes)} volumes, and the quota leaves 2"
            expect(len(told) == len(self.volumes) and all(needed in text for text in told), f"the dry run tells {told}")

            made = self.karbor.restore(self.files, self.second)["operation_id"]
            failed = self.karbor.fail(made)["result"]["resources"]
            expect(any("quota" in one.get("reason", "").lower() for one in failed), f"no reason tells of the quota: {failed}")
            undone = self.karbor.undo(made)
            expect(undone["state"] == "cancelled" and "undone" in undone["reason"], f"undoing it ended as {undone}")
            self.nothing_is_left_but(self.empty)
            refused, _ = self.karbor.refused("POST", f"/operations/{self.second}/action", {"undo": {}})
            expect(refused == 409, f"undoing what has succeeded answers {refused}")

            made = self.karbor.restore(self.files, self.second)["operation_id"]
            self.karbor.fail(made)
        finally:
            admin().delete("volumev3", quota)
        resumed = self.karbor.resume(made)
        expect(resumed["state"] == "succeeded", f"resumed, it {resumed['state']}: {resumed['reason']}")
        expect_same(self.before, describe(self.demo))

    def nothing_is_left_but(self, held):
        left = left_over(held, self.holdings())
        expect(not left, "; ".join(left))

    def it_comes_back_in_another_project(self):
        auth = {"type": "password", "username": "demo2", "password": PASSWORD, "project_name": "demo2"}
        made = self.karbor.restore(self.files, self.second, restore_target=KEYSTONE, restore_auth=auth)["operation_id"]
        operation = self.karbor.fail(made)
        # What Karbor keeps of a share is a snapshot, and Manila shows that to no other project.
        failed = [(one["type"], one["reason"]) for one in operation["result"]["resources"] if one["status"] != "done"]
        expect([kind for kind, _ in failed] == ["OS::Manila::Share"] and "same project" in failed[0][1], f"these failed: {failed}")
        expect_same(self.before | {"shares": {}}, describe(self.other))
        for file in (self.site.state / "karbor.db", self.site.log):
            expect(b'"' + PASSWORD.encode() + b'"' not in file.read_bytes(), f"the password stands in {file}")

    def the_comparison_sees_every_change(self):
        seen = differences(self.before, changed(self.other))
        for wanted in CHANGES:
            expect(any(line.startswith(wanted) for line in seen), f"{wanted} was changed, and only this was seen: {seen}")

    def swift_holds_it_too(self):
        provider = self.karbor.provider("Swift")
        plan = self.karbor.project_plan(provider, "in swift")
        before = describe(self.demo)
        checkpoint = self.karbor.protect(provider, plan)
        self.timed("first protect into Swift", checkpoint)
        application.lose(self.demo)
        self.timed("restore from Swift", self.karbor.restore(provider, checkpoint)["operation_id"])
        after = describe(self.demo)
        self.timed("deletion", self.karbor.delete(provider, checkpoint))
        expect_same(before, after)

    def known_volume(self):
        """Makes a volume with known bytes; returns its id and its digest."""
        volume = application.volume(self.other, "shop-data")
        self.other.wait("volumev3", f"/volumes/{volume}", "available")
        application.write_pattern(volume, application.VOLUMES["shop-data"][3])
        return volume, blocks.digest(volume)

    def come_back(self, provider, checkpoint, held, wanted, what, digest=blocks.digest):
        """Restores volumes beside those that are held, compares their digests, and deletes them and the checkpoint."""
        self.elsewhere.succeed(self.elsewhere.restore(provider, checkpoint)["operation_id"])
        made = [id for id in self.holdings()["volume"] if id not in held["volume"]]
        found = sorted(digest(one) for one in made)
        expect(found == sorted(wanted), f"{what} restored {made}, with other bytes")
        for one in made:
            self.other.delete("volumev3", f"/volumes/{one}")
            self.other.wait_gone("volumev3", f"/volumes/{one}")
        self.elsewhere.succeed(self.elsewhere.delete(provider, checkpoint))

    def the_other_plugins_keep_a_volume(self):
        volume, wanted = self.known_volume()
        for name, temporary in (("Cinder backup", 0), ("Snapshots", 0), ("Glance", 1), ("Temporary volumes", 1)):
            held, asked = self.holdings(), asked_for()
            provider = self.elsewhere.provider(name)
            plan = self.elsewhere.plan(provider, ("OS::Cinder::Volume", volume, "data"))
            checkpoint = self.elsewhere.protect(provider, plan)
            self.elsewhere.succeed(checkpoint)
            found = asked_for() - asked
            expect(found == temporary, f"{name}: {found} temporary volumes were made, not {temporary}")
            self.come_back(provider, checkpoint, held, [wanted], name)
            left = left_over(held, self.holdings())
            expect(not left, f"{name}: {'; '.join(left)}")

    def an_account_lies_in_swift_as_somebody_else(self):
        """An account in a container of the tenant's own Swift, opened as one of the tenant's users."""
        project = self.other.project
        manager, path = Karbor(admin()), f"/bank_accounts/swift?project_id={project}"
        credentials = {"OS_AUTH_URL": KEYSTONE, "OS_USERNAME": "demo2", "OS_PASSWORD": "wrong", "OS_PROJECT_NAME": "demo2",
                       "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default", "OS_REGION_NAME": "RegionOne"}
        wish = {"place": "swift://tenant-backups/karbor", "credentials": credentials}
        status, said = manager.refused("PUT", path, {"bank_account": wish})
        expect(status == 400 and "credentials" in said and "wrong" not in said, f"a wrong password: {status} {said}")
        credentials["OS_PASSWORD"] = PASSWORD
        set_up = manager.ask("PUT", path, {"bank_account": wish})
        expect(set_up["has_credentials"] and PASSWORD not in json.dumps(set_up), f"the account: {set_up}")

        volume, wanted = self.known_volume()
        provider, held = self.elsewhere.provider("Swift"), self.holdings()
        plan = self.elsewhere.plan(provider, ("OS::Cinder::Volume", volume, "data"))
        checkpoint = self.elsewhere.protect(provider, plan)
        self.elsewhere.succeed(checkpoint)
        theirs, ours = objects(self.other, "tenant-backups"), objects(Cloud("karbor"), "karbor")
        expect(any(checkpoint in name for name in theirs), f"the checkpoint is not among {len(theirs)} objects")
        expect(not any(project in name for name in ours), "something of it lies in the service's container")
        status, said = manager.refused("PUT", path, {"bank_account": {"place": None}})
        expect(status == 409, f"another place while it holds a checkpoint: {status} {said}")
        self.come_back(provider, checkpoint, held, [wanted], "Swift")

    def volumes_of_a_group_are_taken_together(self):
        cloud = self.other
        kind = next(one["id"] for one in cloud.list("volumev3", "/types", "volume_types") if one["name"] == "nfs")
        group_type = admin().post("volumev3", "/group_types", {"group_type": {"name": "shop", "is_public": True}})["id"]
        try:
            group = cloud.post("volumev3", "/groups", {"group": {"name": "shop-group", "group_type": group_type, "volume_types": [kind]}})["id"]
            cloud.wait("volumev3", f"/groups/{group}", "available")
            volumes = []
            for seed in (31, 32, 33):
                volume = {"name": f"shop-group-{seed}", "size": 1, "volume_type": kind, "group_id": group}
                volumes.append(cloud.post("volumev3", "/volumes", {"volume": volume})["id"])
                cloud.wait("volumev3", f"/volumes/{volumes[-1]}", "available")
                blocks.write_pattern(volumes[-1], [(seed * MIB, 3 * MIB, seed)])
            wanted = [blocks.digest(one) for one in volumes]
            held = self.holdings()
            for name in ("Files", "Temporary volumes"):
                asked = asked_for("snapshots"), asked_for("group_snapshots")
                provider = self.elsewhere.provider(name)
                plan = self.elsewhere.plan(provider, *(("OS::Cinder::Volume", one, "of a group") for one in volumes))
                checkpoint = self.elsewhere.protect(provider, plan)
                self.elsewhere.succeed(checkpoint)
                asked = asked_for("snapshots") - asked[0], asked_for("group_snapshots") - asked[1]
                expect(asked == (0, 1), f"{name}: {asked[0]} single and {asked[1]} group snapshots were taken")
                left = left_over(held, self.holdings())
                expect(not left, f"{name}: {'; '.join(left)}")
                self.come_back(provider, checkpoint, held, wanted, name)
        finally:
            application.remove_groups(cloud)
            admin().delete("volumev3", f"/group_types/{group_type}")

    def a_volume_on_ceph_comes_back(self):
        cloud, provider, held = self.other, self.elsewhere.provider("Files"), self.holdings()
        volume = cloud.post("volumev3", "/volumes", {"volume": {"name": "shop-ceph", "size": 1, "volume_type": "ceph"}})["id"]
        try:
            cloud.wait("volumev3", f"/volumes/{volume}", "available")
            plan = self.elsewhere.plan(provider, ("OS::Cinder::Volume", volume, "on Ceph"))
            extents, checkpoints = [(3 * MIB, 5 * MIB, 41), (700 * MIB, 9 * MIB, 42)], []
            for seed in (43, 44):
                extents.append((seed * 10 * MIB, MIB, seed))
                ceph.fill(volume, 1024 * MIB, extents)
                wanted, there = ceph.digest(volume), self.holdings()
                checkpoint = self.elsewhere.protect(provider, plan)
                self.elsewhere.succeed(checkpoint)
                checkpoints.append((checkpoint, wanted))
                left = left_over(there, self.holdings())
                expect(not left, "; ".join(left))
            new = [self.elsewhere.checkpoint(provider, one)["size"]["new_bytes"] for one, _ in checkpoints]
            expect(15 * MIB <= new[0] < 20 * MIB and new[1] < 4 * MIB, f"on the two days {new} bytes were new")
            there = self.holdings()
            for checkpoint, wanted in checkpoints:
                self.come_back(provider, checkpoint, there, [wanted], "Ceph", ceph.digest)
        finally:
            cloud.delete("volumev3", f"/volumes/{volume}")
            cloud.wait_gone("volumev3", f"/volumes/{volume}")
        left = left_over(held, self.holdings())
        expect(not left, "; ".join(left))

    def the_old_client_works(self):
        openstack = Path(os.environ.get("CARGO_TARGET_DIR", "")) / "venv-osc" / "bin" / "openstack"
        environment = {**os.environ, **self.environment()}
        for words in ([self.site.environment["KARBOR_BINARY"], "plan", "list"], [openstack, "data", "protection", "plan", "list"]):
            if not Path(words[0]).exists():
                continue
            done = subprocess.run(words, env=environment, text=True, capture_output=True)
            expect(done.returncode == 0 and self.plan in done.stdout, f"{words[0]}: {done.stdout}{done.stderr}")

    def environment(self):
        """Returns what `testing/devcloud/karbor env` prints."""
        _, text = self.site.script("env")
        words = [word for line in text.splitlines() if line.startswith("export ") for word in line.removeprefix("export ").split()]
        return dict(word.split("=", 1) for word in words)

    def what_is_deleted_leaves_nothing(self):
        for checkpoint in (self.first, self.second):
            self.timed("deletion", self.karbor.delete(self.files, checkpoint))
        kept = self.holdings()["share snapshot"]
        expect(not kept, f"snapshots of shares are left: {kept}")
        no_trust_is_left()

    def close(self):
        self.site.stop()
        for cloud in (self.demo, self.other):
            application.remove(cloud)


# Where the comparison must see what `changed` changes.
CHANGES = (
    "/networks/shop-net/mtu", "/subnets/shop-v4/dns_nameservers", "/routers/shop-router/routes",
    "/security groups/shop-web/rules", "/floating addresses", "/servers/shop-app/metadata", "/servers/shop-app/devices",
    "/servers/shop-web/tags", "/volumes/shop-db2/bytes", "/volumes/shop-data/metadata", "/volumes/shop-data/attached to",
    "/images/shop-image/tags", "/ports/shop-back 10.78.0.20/security groups", "/key pairs/shop-key",
)


def changed(cloud):
    """Changes one thing of each kind, and describes what is then there."""
    def one(kind, name):
        return cloud.get("network", f"/{kind}?name={name}&project_id={cloud.project}")[0]

    def put(kind, member, name, **body):
        cloud.ask("PUT", "network", f"/{kind}/{one(kind, name)['id']}", {member: body})
    put("networks", "network", "shop-net", mtu=1399)
    put("subnets", "subnet", "shop-v4", dns_nameservers=["10.77.0.2", "10.77.0.3"])
    put("routers", "router", "shop-router", routes=[])
    cloud.delete("network", f"/security-group-rules/{one('security-groups', 'shop-web')['security_group_rules'][0]['id']}")
    address = cloud.get("network", f"/floatingips?project_id={cloud.project}")[0]["id"]
    cloud.ask("PUT", "network", f"/floatingips/{address}", {"floatingip": {"port_id": None}})
    servers = {server["name"]: server["id"] for server in cloud.list("compute", "/servers/detail")}
    volumes = {volume["name"]: volume["id"] for volume in cloud.list("volumev3", "/volumes/detail")}
    cloud.post("compute", f"/servers/{servers['shop-app']}/metadata", {"metadata": {"role": "none"}})
    cloud.delete("compute", f"/servers/{servers['shop-app']}/os-volume_attachments/{volumes['shop-data']}")
    cloud.wait("volumev3", f"/volumes/{volumes['shop-data']}", "available")
    cloud.delete("compute", f"/servers/{servers['shop-web']}/tags/tier1")
    with open(blocks.file_of(volumes["shop-db2"]), "r+b") as file:
        file.seek(1200 * MIB)
        file.write(b"!")
    cloud.ask("PUT", "volumev3", f"/volumes/{volumes['shop-data']}/metadata", {"metadata": {"tier": "none"}})
    image = cloud.list("image", f"/images?owner={cloud.project}&name=shop-image", "images")[0]["id"]
    cloud.delete("image", f"/images/{image}/tags/golden")
    port = next(port for port in cloud.get("network", f"/ports?project_id={cloud.project}") if port["fixed_ips"][0]["ip_address"] == "10.78.0.20")
    cloud.ask("PUT", "network", f"/ports/{port['id']}", {"port": {"security_groups": []}})
    cloud.delete("compute", "/os-keypairs/shop-key")
    return describe(cloud)


def main():
    story = Story(sys.argv[1])
    names = sys.argv[2:] or [
        "the_application_is_built", "what_there_is_is_listed_with_its_dependents", "the_project_is_protected",
        "the_second_day_moves_what_changed", "nobody_else_reaches_it", "a_verification_reads_every_byte",
        "a_dry_run_shows_what_would_be_made", "what_was_lost_comes_back",
        "a_restore_that_failed_is_undone_or_resumed", "it_comes_back_in_another_project",
        "the_comparison_sees_every_change", "the_other_plugins_keep_a_volume",
        "an_account_lies_in_swift_as_somebody_else", "volumes_of_a_group_are_taken_together",
        "a_volume_on_ceph_comes_back", "swift_holds_it_too", "the_old_client_works", "what_is_deleted_leaves_nothing"]
    passed = failed = 0
    try:
        passed, failed = run_cases((name, getattr(story, name)) for name in names)
    finally:
        if failed:
            print(story.site.log_tail(40))
        story.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
