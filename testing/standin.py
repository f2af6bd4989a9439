"""A stand-in for Keystone v3 on the loopback, as far as validating tokens needs one.

A token `<user>:<project>` is valid for a day: the users `admin` and `karbor` have the role admin, `reader` has that role
alone, all others are members. Everything else is no token.
"""
import datetime
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICE = "karbor:service"


def document(user, project):
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    domain = {"id": "default", "name": "Default"}
    role = {"admin": "admin", "karbor": "admin", "reader": "reader"}.get(user, "member")
    return {"token": {
        "methods": ["password"], "audit_ids": ["x"], "is_domain": False,
        "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.000000Z"), "user": {"id": user, "name": user, "domain": domain},
        "project": {"id": project, "name": "demo-project", "domain": domain}, "roles": [{"id": role, "name": role}],
        "catalog": Handler.catalog(project)}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Its own address, and that of the service that the catalog names.
    own = service = None

    @classmethod
    def catalog(cls, project):
        def entry(kind, name, url):
            return {"type": kind, "name": name, "id": name, "endpoints": [
                {"id": f"{name}-{one}", "interface": one, "url": url, "region": "RegionOne", "region_id": "RegionOne"}
                for one in ("public", "internal", "admin")]}
        entries = [entry("identity", "keystone", cls.own + "/v3/")]
        if cls.service:
            entries.append(entry("data-protect", "karbor", f"{cls.service}/v1/{project}"))
        return entries

    def log_message(self, *_):
        pass

    def answer(self, status, body=None, headers=()):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if data:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status):
        self.answer(status, {"error": {"code": status, "title": "Refused", "message": "refused"}})

    def do_GET(self):
        path = self.path.partition("?")[0].rstrip("/")
        if path in ("", "/v3"):
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": self.own + "/v3/"}]}
            return self.answer(200, {"version": version} if path else {"versions": {"values": [version]}})
        if path == "/v3/auth/tokens":
            known = re.match(r"^([\w.-]+):([\w.-]+)$", self.headers.get("X-Subject-Token") or "")
            return self.answer(200, document(*known.groups())) if known else self.refuse(404)
        if path == "/v3/auth/catalog":
            project = (self.headers.get("X-Auth-Token") or ":").partition(":")[2]
            return self.answer(200, {"catalog": self.catalog(project), "links": {}})
        return self.refuse(404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if not self.path.startswith("/v3/auth/tokens"):
            return self.refuse(404)
        try:
            auth = body["auth"]
            user = auth["identity"]["password"]["user"]
            user = user.get("name") or user.get("id")
            project = auth["scope"]["project"]
            project = project.get("id") or project["name"]
        except (KeyError, TypeError):
            return self.refuse(401)
        self.answer(201, document(user, project), [("X-Subject-Token", f"{user}:{project}")])


class Keystone:
    """Serves on a free port until it is stopped; one at a time in a process."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = Handler.own = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def names(self, service):
        """Lets the catalog name a service."""
        Handler.service = service

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
