"""What a project has in the cloud, by names instead of ids, so that two can be compared; and what differs."""

import subprocess

import blocks
from apis import DIRECTORY, Cloud
from application import LOST
from service import wait_for


def describe(cloud):
    """Describes everything that the project of `cloud` has, down to the bytes of its volumes.

    What only administrators see of servers (the root device, the order of booting) is asked of the cloud as one. User data
    is left out: Nova shows it to administrators only, so what acts for a member cannot read it.
    """
    return Project(cloud).describe()


def pick(thing, *names):
    return {name: thing.get(name) for name in names}


class Project:
    def __init__(self, cloud):
        self.cloud = cloud
        mine = f"?project_id={cloud.project}"
        self.networks = {one["id"]: one for one in cloud.get("network", "/networks")}
        self.subnets = {one["id"]: one for one in cloud.get("network", "/subnets")}
        self.ports = cloud.get("network", "/ports" + mine)
        self.groups = {one["id"]: one for one in cloud.get("network", "/security-groups" + mine)}
        self.routers = cloud.get("network", "/routers" + mine)
        self.floating = cloud.get("network", "/floatingips" + mine)
        self.servers = {one["id"]: one for one in cloud.list("compute", "/servers/detail")}
        self.volumes = {one["id"]: one for one in cloud.list("volumev3", "/volumes/detail")}
        self.images = {one["id"]: one for one in cloud.list("image", f"/images?owner={cloud.project}", "images")}

    def describe(self):
        return {
            "networks": self.by_name(self.networks.values(), self.network, own=True),
            "subnets": self.by_name(self.subnets.values(), self.subnet, own=True),
            "routers": self.by_name(self.routers, self.router),
            "security groups": self.by_name(self.groups.values(), self.security_group),
            "ports": {self.port_key(port): self.port(port) for port in self.ports if not port["device_owner"].startswith("network:")},
            "floating addresses": sorted((self.floating_address(one) for one in self.floating), key=str),
            "servers": self.by_name(self.servers.values(), self.server),
            "volumes": self.by_name(self.volumes.values(), self.volume),
            "images": self.by_name(self.images.values(), self.image),
            "shares": self.by_name([one for one in self.cloud.list("sharev2", "/shares/detail") if one["name"] != LOST], self.share),
            "key pairs": {one["keypair"]["name"]: one["keypair"]["fingerprint"] for one in self.cloud.get("compute", "/os-keypairs")},
            "server groups": {one["name"]: {"policy": one["policy"], "members": sorted(self.servers[id]["name"] for id in one["members"])}
                              for one in self.cloud.get("compute", "/os-server-groups")},
        }

    def by_name(self, things, describe, own=False):
        found = {}
        for thing in things:
            if own and thing["project_id"] != self.cloud.project:
                continue
            name, n = thing["name"], 2
            while name in found:
                name, n = f"{thing['name']} ({n})", n + 1
            found[name] = describe(thing)
        return found

    def network(self, one):
        return pick(one, "admin_state_up", "description", "mtu", "port_security_enabled", "shared") | {"tags": sorted(one["tags"])}

    def subnet(self, one):
        return {"network": self.networks[one["network_id"]]["name"], "tags": sorted(one["tags"])} | pick(
            one, "cidr", "ip_version", "allocation_pools", "dns_nameservers", "host_routes", "gateway_ip", "enable_dhcp",
            "ipv6_address_mode", "ipv6_ra_mode", "description")

    def router(self, one):
        gateway = one["external_gateway_info"]
        return pick(one, "admin_state_up", "description", "routes") | {
            "gateway": gateway and {"network": self.networks[gateway["network_id"]]["name"], "snat": gateway.get("enable_snat")},
            "interfaces": sorted(str(self.fixed(port)) for port in self.ports
                                 if port["device_id"] == one["id"] and port["device_owner"] == "network:router_interface")}

    def security_group(self, one):
        def rule(of):
            peer = of["remote_group_id"]
            return pick(of, "direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "description") | {
                "remote_group": peer and (self.groups[peer]["name"] if peer in self.groups else f"unknown group {peer}")}
        description = one["description"]
        return {"description": description, "stateful": one.get("stateful"), "rules": sorted((rule(of) for of in one["security_group_rules"]), key=str)}

    def fixed(self, port):
        return [(self.subnets[ip["subnet_id"]]["name"], ip["ip_address"]) for ip in port["fixed_ips"]]

    def port_key(self, port):
        addresses = sorted(ip["ip_address"] for ip in port["fixed_ips"])
        return f"{self.networks[port['network_id']]['name']} {' '.join(addresses)}"

    def port(self, one):
        server = self.servers.get(one["device_id"])
        return pick(one, "name", "description", "mac_address", "admin_state_up", "port_security_enabled", "device_owner") | {
            "addresses": sorted(self.fixed(one)), "server": server and server["name"], "tags": sorted(one["tags"]),
            "security groups": sorted(self.groups[id]["name"] for id in one["security_groups"]),
            "address pairs": sorted(pair["ip_address"] for pair in one["allowed_address_pairs"])}

    def floating_address(self, one):
        port = next((port for port in self.ports if port["id"] == one["port_id"]), None)
        return {"network": self.networks[one["floating_network_id"]]["name"], "fixed address": one["fixed_ip_address"],
                "port": port and self.port_key(port), "description": one["description"], "address": one["floating_ip_address"]}

    def server(self, one):
        as_admin = admin().get("compute", f"/servers/{one['id']}")
        image = one["image"] and self.images.get(one["image"]["id"])
        image_name = image["name"] if image else one["image"] and self.cloud.exists("image", f"/images/{one['image']['id']}") or "gone"
        return pick(one, "status", "description", "key_name", "metadata", "config_drive", "OS-EXT-AZ:availability_zone") | {
            "flavor": one["flavor"]["original_name"], "tags": sorted(one["tags"]),
            "image": image_name if one["image"] else None,
            "root device": as_admin["OS-EXT-SRV-ATTR:root_device_name"], "networks in order": list(one["addresses"]),
            "security groups": sorted({group["name"] for group in one.get("security_groups", [])}),
            "devices": self.devices(one["id"])}

    def devices(self, server):
        """The block devices in the order of their names, from Nova's database: no API shows the order of booting."""
        rows = subprocess.run(
            ["mariadb", "--no-defaults", f"--socket={DIRECTORY}/run/mysql.sock", "--user=root", "nova", "-Ne",
             "SELECT device_name, boot_index, source_type, volume_id, delete_on_termination FROM block_device_mapping "
             f"WHERE deleted = 0 AND instance_uuid = '{server}' ORDER BY device_name"],
            check=True, text=True, capture_output=True).stdout.splitlines()
        found = []
        for row in rows:
            device, index, source, volume, ends = row.split("\t")
            name = self.volumes[volume]["name"] if volume in self.volumes else None
            # A data volume that was attached later has no index, one that was there from the start has -1.
            found.append({"device": device, "boot index": None if index in ("NULL", "-1") else int(index),
                          "volume": name, "from": "image" if source == "image" else "volume", "ends with the server": ends == "1"})
        return found

    def volume(self, one):
        attached = sorted((self.servers[to["server_id"]]["name"] if to["server_id"] in self.servers else "nobody known", to["device"])
                          for to in one["attachments"])
        # The one is another id, the other says that Cinder itself had made the volume of an image.
        told = ("image_id", "signature_verified")
        image = {key: value for key, value in one.get("volume_image_metadata", {}).items() if key not in told}
        return pick(one, "status", "size", "description", "volume_type", "availability_zone", "bootable", "multiattach", "metadata") | {
            "image metadata": image, "attached to": attached, "bytes": blocks.digest(one["id"])}

    def image(self, one):
        changing = {"id", "created_at", "updated_at", "owner", "file", "self", "schema", "direct_url", "stores", "locations"}
        return {key: sorted(value) if key == "tags" else value for key, value in one.items() if key not in changing}

    def share(self, one):
        rules = self.cloud.get("sharev2", f"/share-access-rules?share_id={one['id']}")
        return pick(one, "status", "size", "description", "share_proto", "share_type_name", "is_public", "metadata", "availability_zone") | {
            "rules": sorted((rule["access_type"], rule["access_to"], rule["access_level"], rule["state"]) for rule in rules)}


def admin():
    """Returns the administrator, logged in once."""
    if not hasattr(admin, "cloud"):
        admin.cloud = Cloud("admin")
    return admin.cloud


def differences(one, two, path=""):
    """Returns where two descriptions differ, a line each."""
    if isinstance(one, dict) and isinstance(two, dict):
        found = []
        for key in sorted(one.keys() | two.keys(), key=str):
            here = f"{path}/{key}"
            if key not in two:
                found.append(f"{here} is missing")
            elif key not in one:
                found.append(f"{here} is there and was not: {two[key]}")
            else:
                found += differences(one[key], two[key], here)
        return found
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [line for n, (a, b) in enumerate(zip(one, two)) for line in differences(a, b, f"{path}[{n}]")]
    return [] if one == two else [f"{path} was {one}, is {two}"]


def holdings(*clouds):
    """Returns the ids of all that these projects hold and an operation might leave: {kind: {id: what it is}}."""
    found = {}
    for cloud in clouds:
        mine = f"?project_id={cloud.project}"
        for kind, things in {
            "server": cloud.list("compute", "/servers/detail"),
            "volume": cloud.list("volumev3", "/volumes/detail"),
            "snapshot": cloud.list("volumev3", "/snapshots/detail"),
            "group snapshot": cloud.list("volumev3", "/group_snapshots/detail"),
            "attachment": cloud.get("volumev3", "/attachments"),
            "backup": cloud.list("volumev3", "/backups/detail"),
            "image": cloud.list("image", f"/images?owner={cloud.project}", "images"),
            "share": cloud.list("sharev2", "/shares/detail"),
            "share snapshot": cloud.list("sharev2", "/snapshots/detail"),
            "port": cloud.get("network", "/ports" + mine),
            "network": cloud.get("network", "/networks" + mine),
            "router": cloud.get("network", "/routers" + mine),
            "security group": cloud.get("network", "/security-groups" + mine),
            "floating address": cloud.get("network", "/floatingips" + mine),
        }.items():
            found.setdefault(kind, {}).update({one["id"]: f"{one.get('name') or ''} {one.get('status') or ''}".strip() for one in things})
    return found


def no_trust_is_left():
    """Waits until all trusts are gone. Karbor takes them back some time after what they were for has ended."""
    wait_for("trusts to be taken back", lambda: not admin().list("identity", "/OS-TRUST/trusts", "trusts"), 240)


def left_over(before, after, but=()):
    """Returns what is held now and was not before, a line each."""
    return [f"{kind} {id} ({after[kind][id]}) is left" for kind in after if kind not in but
            for id in sorted(after[kind].keys() - before[kind].keys())]
