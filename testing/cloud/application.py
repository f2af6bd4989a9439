"""The sample application: three servers with their networks, volumes, image, share and key, built and removed.

A web server booted from a private image, with a port of its own and a floating address; an application server with a
data volume; a database server booted from a volume and with two more. Everything bears a name that begins with `shop-`.
"""

import base64
import json
import struct
import time

from blocks import write_pattern
from service import Failed

KEY = b"ssh-ed25519"
PUBLIC_KEY = "ssh-ed25519 " + base64.b64encode(
    struct.pack(">I", len(KEY)) + KEY + struct.pack(">I", 32) + bytes(range(7, 39))).decode() + " shop"
# What a share is called that was lost but for its snapshots.
LOST = "lost"
IMAGE_BYTES = 8 << 20
MIB = 1 << 20

# name: (size in GiB, description, metadata, [(offset, length, seed)]: what is written into it; a seed of 0 writes zeros)
VOLUMES = {
    "shop-data": (1, "data of the application server", {"tier": "app", "owner": "ann"},
                  [(0, MIB, 1), (100 * MIB, 3 * MIB + 512, 2), (300 * MIB, 4 * MIB, 0), (1024 * MIB - 512, 512, 3)]),
    "shop-boot": (1, "the database server's system", {}, [(200 * MIB, MIB, 4)]),
    "shop-db1": (1, "tables", {"tier": "db"}, [(0, 48 * MIB, 5), (512 * MIB, 16 * MIB, 6)]),
    "shop-db2": (2, "", {"tier": "db"}, [(2048 * MIB - 4096, 4096, 7)]),
}


def build(cloud):
    network(cloud)
    cloud.post("compute", "/os-keypairs", {"keypair": {"name": "shop-key", "public_key": PUBLIC_KEY, "type": "ssh"}})
    share = cloud.post("sharev2", "/shares", {"share": {
        "name": "shop-share", "description": "what servers share", "share_proto": "NFS", "size": 1, "share_type": "default",
        "metadata": {"purpose": "uploads"}}})["id"]
    image = image_with_bytes(cloud)
    volumes = {name: volume(cloud, name, image if name == "shop-boot" else None) for name in VOLUMES}
    for name, id in volumes.items():
        cloud.wait("volumev3", f"/volumes/{id}", "available")
        write_pattern(id, VOLUMES[name][3])
    servers(cloud, image, volumes)
    cloud.wait("sharev2", f"/shares/{share}", "available")
    cloud.post("sharev2", f"/shares/{share}/action",
               {"allow_access": {"access_type": "ip", "access_to": "10.77.0.20", "access_level": "rw"}})
    return volumes


def network(cloud):
    def make(kind, member, **body):
        return cloud.post("network", kind, {member: body})

    def tag(kind, id, *tags):
        cloud.ask("PUT", "network", f"/{kind}/{id}/tags", {"tags": list(tags)})
    front = make("/networks", "network", name="shop-net", description="in front", mtu=1400)["id"]
    back = make("/networks", "network", name="shop-back")["id"]
    tag("networks", front, "shop", "front")
    v4 = make("/subnets", "subnet", name="shop-v4", network_id=front, ip_version=4, cidr="10.77.0.0/24",
              allocation_pools=[{"start": "10.77.0.50", "end": "10.77.0.99"}], dns_nameservers=["10.77.0.3", "10.77.0.2"],
              host_routes=[{"destination": "10.99.0.0/24", "nexthop": "10.77.0.9"}], description="for servers")["id"]
    v6 = make("/subnets", "subnet", name="shop-v6", network_id=front, ip_version=6, cidr="fd77::/64",
              ipv6_address_mode="dhcpv6-stateful", ipv6_ra_mode="dhcpv6-stateful")["id"]
    make("/subnets", "subnet", name="shop-back-v4", network_id=back, ip_version=4, cidr="10.78.0.0/24", gateway_ip=None, enable_dhcp=False)
    public = cloud.get("network", "/networks?name=public")[0]["id"]
    router = make("/routers", "router", name="shop-router", description="the way out", external_gateway_info={"network_id": public})["id"]
    for subnet in (v4, v6):
        cloud.ask("PUT", "network", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    cloud.ask("PUT", "network", f"/routers/{router}", {"router": {"routes": [{"destination": "10.98.0.0/24", "nexthop": "10.77.0.8"}]}})
    security_groups(cloud, make)
    web = cloud.get("network", "/security-groups?name=shop-web")[0]["id"]
    port = make("/ports", "port", name="shop-web-port", network_id=front, description="of the web server", security_groups=[web],
                fixed_ips=[{"subnet_id": v4, "ip_address": "10.77.0.10"}, {"subnet_id": v6, "ip_address": "fd77::10"}],
                allowed_address_pairs=[{"ip_address": "10.77.0.100"}])["id"]
    tag("ports", port, "front")
    make("/floatingips", "floatingip", floating_network_id=public, port_id=port, fixed_ip_address="10.77.0.10", description="the shop")


def security_groups(cloud, make):
    groups = {name: make("/security-groups", "security_group", name=name, description=f"rules of {name}")
              for name in ("shop-web", "shop-app", "shop-db")}
    id = {name: group["id"] for name, group in groups.items()}
    for rule in groups["shop-db"]["security_group_rules"]:
        cloud.delete("network", f"/security-group-rules/{rule['id']}")
    for group, peer, protocol, ports, more in (
            ("shop-web", None, "tcp", (80, 80), {"remote_ip_prefix": "0.0.0.0/0"}),
            ("shop-web", None, "tcp", (443, 443), {"ethertype": "IPv6", "remote_ip_prefix": "::/0"}),
            ("shop-web", "shop-app", "icmp", (8, 0), {}),
            ("shop-app", "shop-web", "tcp", (8080, 8089), {"description": "from the web server"}),
            ("shop-app", "shop-app", None, (None, None), {}),
            ("shop-db", "shop-app", "tcp", (5432, 5432), {}),
            ("shop-db", "shop-app", "udp", (53, 53), {"direction": "egress"})):
        rule = {"security_group_id": id[group], "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
                "port_range_min": ports[0], "port_range_max": ports[1], **more}
        if peer:
            rule["remote_group_id"] = id[peer]
        make("/security-group-rules", "security_group_rule", **rule)


def image_with_bytes(cloud):
    image = cloud.post("image", "/images", {
        "name": "shop-image", "disk_format": "raw", "container_format": "bare", "visibility": "private", "min_disk": 1, "min_ram": 64,
        "tags": ["shop", "golden"], "os_distro": "debian", "hw_disk_bus": "virtio"})["id"]
    seed = b"".join(struct.pack(">Q", n * 2654435761 % 2**64) for n in range(MIB // 8))
    cloud.call("PUT", "image", f"/images/{image}/file", seed * (IMAGE_BYTES // MIB), {"Content-Type": "application/octet-stream"})
    cloud.wait("image", f"/images/{image}", "active")
    return image


def volume(cloud, name, image=None):
    size, description, metadata, _ = VOLUMES[name]
    body = {"name": name, "size": size, "description": description or None, "metadata": metadata}
    if image:
        body["imageRef"] = image
    return cloud.post("volumev3", "/volumes", {"volume": body})["id"]


def servers(cloud, image, volumes):
    flavor = next(one["id"] for one in cloud.get("compute", "/flavors") if one["name"] == "m1.tiny")
    port = cloud.get("network", "/ports?name=shop-web-port")[0]["id"]
    net = {name: cloud.get("network", f"/networks?name={name}")[0]["id"] for name in ("shop-net", "shop-back")}
    group = cloud.post("compute", "/os-server-groups", {"server_group": {"name": "shop-group", "policy": "soft-anti-affinity"}})["id"]
    common = {"flavorRef": flavor, "key_name": "shop-key"}
    made = [
        boot(cloud, common | {
            "name": "shop-web", "description": "the web server", "imageRef": image, "networks": [{"port": port}],
            "metadata": {"role": "web", "team": "shop"}, "tags": ["front", "tier1"], "config_drive": True,
            "user_data": base64.b64encode(b"#cloud-config\nhostname: shop-web\n").decode()}, group),
        boot(cloud, common | {
            "name": "shop-app", "imageRef": image, "security_groups": [{"name": "shop-app"}, {"name": "default"}],
            "networks": [{"uuid": net["shop-back"], "fixed_ip": "10.78.0.20"}, {"uuid": net["shop-net"], "fixed_ip": "10.77.0.20"}],
            "metadata": {"role": "app"}}, group),
        boot(cloud, common | {
            "name": "shop-db", "security_groups": [{"name": "shop-db"}], "metadata": {"role": "db"},
            "networks": [{"uuid": net["shop-back"], "fixed_ip": "10.78.0.30"}],
            "block_device_mapping_v2": [
                {"uuid": volumes["shop-boot"], "source_type": "volume", "destination_type": "volume", "boot_index": 0,
                 "delete_on_termination": False},
                {"uuid": volumes["shop-db1"], "source_type": "volume", "destination_type": "volume", "boot_index": -1,
                 "delete_on_termination": False, "device_name": "/dev/vdb"}]}),
    ]
    for id in made:
        cloud.wait("compute", f"/servers/{id}", "active")
    attach(cloud, made[1], volumes["shop-data"], "/dev/vdb")
    attach(cloud, made[2], volumes["shop-db2"], "/dev/vdc")


def boot(cloud, server, group=None):
    body = {"server": server}
    if group:
        body["os:scheduler_hints"] = {"group": group}
    return cloud.post("compute", "/servers", body)["id"]


def attach(cloud, server, volume, device):
    cloud.post("compute", f"/servers/{server}/os-volume_attachments", {"volumeAttachment": {"volumeId": volume, "device": device}})
    cloud.wait("volumev3", f"/volumes/{volume}", "in-use")


def lose(cloud):
    """Loses the application: all of the project but the snapshots of shares that Karbor keeps, and the shares below them.

    Manila removes no share that has a snapshot; those are called `lost` instead, and described no more.
    """
    remove(cloud, kept={snapshot["share_id"] for snapshot in cloud.list("sharev2", "/snapshots/detail")})


def remove(cloud, kept=()):
    """Removes all that the project has, however it came about, but what every project has, and shares that are kept."""
    for server in cloud.list("compute", "/servers/detail"):
        cloud.delete("compute", f"/servers/{server['id']}")
    for address in cloud.get("network", f"/floatingips?project_id={cloud.project}"):
        cloud.delete("network", f"/floatingips/{address['id']}")
    remove_groups(cloud)
    for snapshot in cloud.list("volumev3", "/snapshots/detail"):
        cloud.delete("volumev3", f"/snapshots/{snapshot['id']}")
    wait_empty(cloud, "compute", "/servers/detail")
    for backup in sorted(cloud.list("volumev3", "/backups/detail"), key=lambda one: one["created_at"], reverse=True):
        cloud.delete("volumev3", f"/backups/{backup['id']}")
        cloud.wait_gone("volumev3", f"/backups/{backup['id']}")
    wait_empty(cloud, "volumev3", "/snapshots/detail")
    for attachment in cloud.get("volumev3", "/attachments"):
        cloud.delete("volumev3", f"/attachments/{attachment['id']}")
    for volume in cloud.list("volumev3", "/volumes/detail"):
        cloud.delete("volumev3", f"/volumes/{volume['id']}")
    remove_shares(cloud, kept)
    for image in cloud.list("image", f"/images?owner={cloud.project}", "images"):
        cloud.delete("image", f"/images/{image['id']}")
    for group in cloud.get("compute", "/os-server-groups"):
        cloud.delete("compute", f"/os-server-groups/{group['id']}")
    for pair in cloud.get("compute", "/os-keypairs"):
        cloud.delete("compute", f"/os-keypairs/{pair['keypair']['name']}")
    remove_networks(cloud)
    wait_empty(cloud, "volumev3", "/volumes/detail")
    wait_empty(cloud, "sharev2", "/shares/detail", kept)


def remove_groups(cloud):
    """Removes groups of volumes with what is in them: none of that can be removed alone."""
    for snapshot in cloud.list("volumev3", "/group_snapshots/detail"):
        cloud.delete("volumev3", f"/group_snapshots/{snapshot['id']}")
    wait_empty(cloud, "volumev3", "/group_snapshots/detail")
    for group in cloud.list("volumev3", "/groups/detail"):
        cloud.post("volumev3", f"/groups/{group['id']}/action", {"delete": {"delete-volumes": True}})
    wait_empty(cloud, "volumev3", "/groups/detail")


def remove_shares(cloud, kept):
    if not kept:
        for snapshot in cloud.list("sharev2", "/snapshots/detail"):
            cloud.delete("sharev2", f"/snapshots/{snapshot['id']}")
        wait_empty(cloud, "sharev2", "/snapshots/detail")
    for share in cloud.list("sharev2", "/shares/detail"):
        if share["id"] in kept:
            cloud.ask("PUT", "sharev2", f"/shares/{share['id']}", {"share": {"display_name": LOST}})
        else:
            cloud.delete("sharev2", f"/shares/{share['id']}")


def remove_networks(cloud):
    mine = f"?project_id={cloud.project}"
    for router in cloud.get("network", "/routers" + mine):
        if router["routes"]:
            cloud.ask("PUT", "network", f"/routers/{router['id']}", {"router": {"routes": []}})
        for port in cloud.get("network", f"/ports?device_id={router['id']}&device_owner=network:router_interface"):
            cloud.ask("PUT", "network", f"/routers/{router['id']}/remove_router_interface", {"port_id": port["id"]})
        cloud.delete("network", f"/routers/{router['id']}")
    for kind in ("ports", "networks", "security-groups"):
        for one in cloud.get("network", f"/{kind}{mine}"):
            if one["name"] != "default":
                cloud.delete("network", f"/{kind}/{one['id']}")


def wait_empty(cloud, service, path, but=(), seconds=180):
    deadline = time.monotonic() + seconds
    while left := [one for one in cloud.list(service, path) if one["id"] not in but]:
        bad = [one for one in left if "error" in one["status"].lower()]
        if bad or time.monotonic() > deadline:
            raise Failed(f"{path} is not empty: {json.dumps([{key: one[key] for key in ('id', 'name', 'status')} for one in bad or left])}")
        time.sleep(0.3)
