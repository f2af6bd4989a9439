# Sourced by up. Keystone: uwsgi, fernet tokens.

configure_keystone() {
  create_database keystone
  mkdir -p "$ETC/keystone/fernet" "$ETC/keystone/credential"
  cat > "$ETC/keystone/keystone.conf" <<END
[DEFAULT]
use_stderr = true
[database]
connection = $(db_url keystone)
[identity]
# bcrypt at its cheapest: every service logs in often.
password_hash_rounds = 4
[token]
provider = fernet
[fernet_tokens]
key_repository = $ETC/keystone/fernet
[credential]
key_repository = $ETC/keystone/credential
[oslo_policy]
policy_dirs = /etc/keystone/policy.d
END
  manage() { logged keystone-manage keystone-manage --config-file "$ETC/keystone/keystone.conf" "$@"; }
  manage db_sync
  manage fernet_setup --keystone-user root --keystone-group root
  manage credential_setup --keystone-user root --keystone-group root
  manage bootstrap --bootstrap-password $PASSWORD --bootstrap-region-id $REGION \
    --bootstrap-public-url $KEYSTONE_URL --bootstrap-internal-url $KEYSTONE_URL \
    --bootstrap-admin-url $KEYSTONE_URL
}

# PEOPLE: user:project:role. Two projects with a member each, and one who may only look.
PEOPLE="demo:demo:member demo2:demo2:member reader:demo:reader"

write_credentials() {
  local one user project
  {
    echo "clouds:"
    for one in admin:admin karbor:service $PEOPLE; do
      IFS=: read -r user project _ <<< "$one"
      cat <<END
  $user:
    region_name: $REGION
    identity_api_version: 3
    auth:
      auth_url: $KEYSTONE_URL
      username: $user
      password: $PASSWORD
      project_name: $project
      user_domain_name: Default
      project_domain_name: Default
END
    done
  } > "$DEVCLOUD_DIR/clouds.yaml"
  cat > "$DEVCLOUD_DIR/openrc" <<END
# . openrc [USER [PROJECT]]
export OS_CLIENT_CONFIG_FILE=$DEVCLOUD_DIR/clouds.yaml
export OS_AUTH_URL=$KEYSTONE_URL OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=$REGION
export OS_USERNAME=\${1:-admin} OS_PROJECT_NAME=\${2:-\${1:-admin}} OS_PASSWORD=$PASSWORD
export OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default
END
}

# Karbor's own user has two roles in the project of the services: `service`, to validate tokens and to act beside users,
# and `member`, for the containers of its Swift bank. It needs no role in any other project: that comes with trusts.
create_accounts() {
  # shellcheck disable=SC2086
  logged keystone-register /usr/bin/python3 "$here/accounts.py" "$DEVCLOUD_DIR/clouds.yaml" "$PASSWORD" \
    karbor:service:service karbor:service:member $PEOPLE \
    --endpoint karbor data-protect "http://$HOST:$KARBOR_PORT/v1/%(project_id)s"
}

start_keystone() {
  start_wsgi keystone 5000 /usr/bin/keystone-wsgi-public 2 \
    OS_KEYSTONE_CONFIG_FILES="$ETC/keystone/keystone.conf"
}

ready_keystone() {
  wait_http $KEYSTONE_URL
  write_credentials
}
