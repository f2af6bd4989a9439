"""Makes users, their projects and roles, and endpoints, where they are missing.

  accounts.py CLOUDS.YAML PASSWORD USER:PROJECT:ROLE... [--endpoint NAME TYPE URL]
"""
import argparse

from openstack.config import OpenStackConfig
from openstack.connection import Connection


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clouds")
    parser.add_argument("password")
    parser.add_argument("--endpoint", nargs=3, metavar=("NAME", "TYPE", "URL"))
    parser.add_argument("accounts", nargs="+", metavar="USER:PROJECT:ROLE")
    arguments = parser.parse_args()
    cloud = OpenStackConfig(config_files=[arguments.clouds]).get_one("admin")
    keystone = Connection(config=cloud).identity
    for account in arguments.accounts:
        user, project, role = account.split(":")
        project = keystone.find_project(project) or keystone.create_project(name=project, domain_id="default")
        user = keystone.find_user(user) or keystone.create_user(
            name=user, password=arguments.password, domain_id="default", default_project_id=project.id)
        role = keystone.find_role(role) or keystone.create_role(name=role)
        keystone.assign_project_role_to_user(project, user, role)
    if arguments.endpoint:
        name, kind, url = arguments.endpoint
        service = keystone.find_service(name) or keystone.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            found = next(iter(keystone.endpoints(service_id=service.id, interface=interface)), None)
            if found is None:
                keystone.create_endpoint(service_id=service.id, interface=interface, region_id=cloud.region_name, url=url)
            elif found.url != url:
                keystone.update_endpoint(found, url=url)


if __name__ == "__main__":
    main()
