"""A cloud's APIs over HTTP, as one user: requests, pages, and waiting for a state."""

import configparser
import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from service import Failed

DIRECTORY = Path(os.environ.get("DEVCLOUD_DIR", "/tmp/devcloud"))
PASSWORD = "devcloud"
KEYSTONE = "http://127.0.0.1:5000/v3"
HEADERS = {
    "volumev3": {"OpenStack-API-Version": "volume 3.59"},
    "compute": {"OpenStack-API-Version": "compute 2.90"},
    "sharev2": {"X-OpenStack-Manila-API-Version": "2.65"},
}


class Refused(Failed):
    """A request was answered with an error."""

    def __init__(self, what, status, body):
        super().__init__(f"{what} answered {status}: {body[:500]}")
        self.status, self.body = status, body


class Cloud:
    """One user in one project."""

    def __init__(self, user, project=None, trust=None):
        self.user, self.project_name, self.trust = user, project or {"karbor": "service", "reader": "demo"}.get(user, user), trust
        self.log_in()

    def log_in(self):
        domain = {"name": "Default"}
        scope = {"OS-TRUST:trust": {"id": self.trust}} if self.trust else {"project": {"name": self.project_name, "domain": domain}}
        body = {"auth": {"scope": scope, "identity": {
            "methods": ["password"], "password": {"user": {"name": self.user, "domain": domain, "password": PASSWORD}}}}}
        headers, _, text = send("POST", KEYSTONE + "/auth/tokens", {"Content-Type": "application/json"}, json.dumps(body).encode())
        token = json.loads(text)["token"]
        self.token, self.project, self.user_id = headers["X-Subject-Token"], token["project"]["id"], token["user"]["id"]
        self.catalog = {service["type"]: endpoint["url"] for service in token["catalog"]
                        for endpoint in service["endpoints"] if endpoint["interface"] == "public"}

    def url(self, service, path):
        base = KEYSTONE if service == "identity" else self.catalog[service].rstrip("/")
        version = {"image": "/v2", "network": "/v2.0"}.get(service, "")
        return base + version + path

    def call(self, method, service, path, body=None, headers=()):
        """Makes one request; returns (headers, bytes). Bytes are sent as they are, everything else as JSON."""
        headers = {"X-Auth-Token": self.token, **HEADERS.get(service, {}), **dict(headers)}
        data = None
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            answer, _, text = send(method, self.url(service, path), headers, data)
        except Refused as err:
            if err.status != 401:
                raise
            self.log_in()
            headers["X-Auth-Token"] = self.token
            answer, _, text = send(method, self.url(service, path), headers, data)
        return answer, text

    def ask(self, method, service, path, body=None, headers=()):
        """Makes one request and returns its JSON, unwrapped when it has one member."""
        _, text = self.call(method, service, path, body, headers)
        answer = json.loads(text) if text else None
        return next(iter(answer.values())) if isinstance(answer, dict) and len(answer) == 1 else answer

    def get(self, service, path):
        return self.ask("GET", service, path)

    def post(self, service, path, body):
        return self.ask("POST", service, path, body)

    def list(self, service, path, member=None):
        """Returns all pages of a list."""
        member = member or re.sub(r"^/(?:os-|detail$)*", "", path.partition("?")[0]).split("/")[0].replace("-", "_")
        found, url = [], path
        while url:
            _, text = self.call("GET", service, url)
            answer = json.loads(text)
            found += answer[member]
            links = answer.get(member + "_links", [])
            following = answer.get("next") or next((link["href"] for link in links if link["rel"] == "next"), None)
            url = following and following_path(following, self.url(service, ""))
        return found

    def delete(self, service, path):
        """Deletes what may be gone already."""
        try:
            self.call("DELETE", service, path)
        except Refused as err:
            if err.status != 404:
                raise

    def exists(self, service, path):
        try:
            return self.get(service, path)
        except Refused as err:
            if err.status != 404:
                raise
            return None

    def wait(self, service, path, wanted, seconds=120):
        """Waits for the status of something; an error status fails at once."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.get(service, path)
            status = found["status"].lower()
            if status == wanted:
                return found
            if "error" in status or time.monotonic() > deadline:
                raise Failed(f"{path} is {status}, not {wanted}: {found.get('fault', '')}")
            time.sleep(0.3)

    def wait_gone(self, service, path, seconds=120):
        deadline = time.monotonic() + seconds
        while found := self.exists(service, path):
            if "error" in found["status"].lower() or time.monotonic() > deadline:
                raise Failed(f"{path} is not gone but {found['status']}")
            time.sleep(0.3)


def following_path(link, base):
    """Returns what of a link to the next page follows the service's address, whatever host it names."""
    parts = urlsplit(link)
    path = urlunsplit(("", "", parts.path, parts.query, ""))
    prefix = urlsplit(base).path
    return path[len(prefix):] if path.startswith(prefix) else path.removeprefix("/v2")


def send(method, url, headers, data):
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.headers, answer.status, answer.read()
    except urllib.error.HTTPError as err:
        raise Refused(f"{method} {url}", err.code, err.read().decode(errors="replace")) from None


def option(file, section, name):
    """Returns an option of one of the cloud's own configuration files."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read(DIRECTORY / "etc" / file)
    return parser[section][name]


__all__ = ["DIRECTORY", "KEYSTONE", "PASSWORD", "Cloud", "Refused", "option", "quote"]
