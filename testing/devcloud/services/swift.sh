# Sourced by up. Swift: one device in a directory.

configure_swift() {
  local server port
  mkdir -p "$ETC/swift" "$DATA/swift/sdb"
  cat > "$ETC/swift/swift.conf" <<END
[swift-hash]
swift_hash_path_suffix = devcloud
[storage-policy:0]
name = default
default = yes
END
  for server in account:6202 container:6201 object:6200; do
    port=${server#*:} server=${server%:*}
    cat > "$ETC/swift/$server-server.conf" <<END
[DEFAULT]
bind_ip = $HOST
bind_port = $port
user = root
swift_dir = $ETC/swift
devices = $DATA/swift
mount_check = false
workers = 0
recon_cache_path = $DATA/swift
[pipeline:main]
pipeline = $server-server
[app:$server-server]
use = egg:swift#$server
END
    (
      cd "$ETC/swift"
      logged swift-rings swift-ring-builder $server.builder create 4 1 1
      logged swift-rings swift-ring-builder $server.builder add r1z1-$HOST:$port/sdb 1
      logged swift-rings swift-ring-builder $server.builder rebalance
    )
  done
  cat > "$ETC/swift/proxy-server.conf" <<END
[DEFAULT]
bind_ip = $HOST
bind_port = 8080
user = root
swift_dir = $ETC/swift
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache bulk tempurl authtoken keystoneauth copy container-quotas account-quotas slo dlo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = $HOST:11211
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
www_authenticate_uri = $KEYSTONE_URL
delay_auth_decision = true
cache = swift.cache
$(service_auth swift)
[filter:keystoneauth]
use = egg:swift#keystoneauth
operator_roles = admin, member
reseller_prefix = AUTH_
[filter:copy]
use = egg:swift#copy
[filter:container-quotas]
use = egg:swift#container_quotas
[filter:account-quotas]
use = egg:swift#account_quotas
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
END
  register swift swift object-store "http://$HOST:8080/v1/AUTH_%(project_id)s"
}

start_swift() {
  local server
  start memcached memcached -l $HOST -p 11211 -m 64 -u nobody
  for server in account container object proxy; do
    start swift-$server swift-$server-server "$ETC/swift/$server-server.conf"
  done
}

ready_swift() { wait_http http://$HOST:8080/healthcheck; }
