# Sourced by up: what the services need of each other, their database, their place in Keystone.

wait_heartbeats() {
  fresh() {
    [ "$(sql "$1" -Ne 'SELECT COUNT(*) FROM services
             WHERE updated_at > UTC_TIMESTAMP() - INTERVAL 6 SECOND')" -ge "$2" ]
  }
  wait_for 120 "$1's services" fresh "$1" "$2"
}

sql() { mariadb --no-defaults --socket="$RUN/mysql.sock" --user=root "$@"; }

create_database() {
  sql -e "CREATE DATABASE IF NOT EXISTS $1 CHARACTER SET utf8mb3;
      GRANT ALL ON $1.* TO devcloud@'$HOST' IDENTIFIED BY '$PASSWORD';"
}

db_url() { echo "mysql+pymysql://devcloud:$PASSWORD@$HOST:13306/$1?charset=utf8"; }

# service_auth NAME: the options with which a service user logs in to keystone.
service_auth() {
  cat <<END
auth_type = password
auth_url = $KEYSTONE_URL
username = $1
password = $PASSWORD
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = $REGION
END
}

# common_conf NAME DATABASE: sections that every service's configuration shares.
common_conf() {
  cat <<END
[database]
connection = $(db_url "$2")
max_pool_size = 5
[oslo_concurrency]
lock_path = $DATA/$1/lock
[oslo_messaging_rabbit]
heartbeat_in_pthread = false
[oslo_messaging_notifications]
driver = noop
[keystone_authtoken]
www_authenticate_uri = $KEYSTONE_URL
service_token_roles = service
service_token_roles_required = true
$(service_auth "$1")
[service_user]
send_service_user_token = true
$(service_auth "$1")
END
}

TRANSPORT_URL=rabbit://guest:guest@$HOST:5672/

# register USER [NAME TYPE URL]: a service user, and its place in the catalog.
register() {
  local user=$1
  shift
  logged keystone-register /usr/bin/python3 "$here/accounts.py" "$DEVCLOUD_DIR/clouds.yaml" "$PASSWORD" \
    "$user:service:admin" "$user:service:service" ${1:+--endpoint "$@"}
}

# start_wsgi NAME PORT WSGI_FILE PROCESSES [CONFIG_ENV...]
start_wsgi() {
  local name=$1 port=$2 file=$3 processes=$4
  shift 4
  start "$name" env "$@" uwsgi --plugins python3 --http-socket "$HOST:$port" --wsgi-file "$file" \
    --master --die-on-term --lazy-apps --enable-threads --processes "$processes" --threads 1 \
    --buffer-size 65535 --rem-header Content-Length --disable-logging
}

initialise_mariadb() {
  mkdir -p "$DATA/mysql"
  logged mysql mariadb-install-db --no-defaults --user=root --datadir="$DATA/mysql" \
    --auth-root-authentication-method=normal --skip-test-db
}

start_mariadb() {
  once initialise_mariadb
  start mysql mariadbd --no-defaults --user=root --datadir="$DATA/mysql" \
    --socket="$RUN/mysql.sock" --bind-address=$HOST --port=13306 --skip-name-resolve \
    --max-connections=500 --innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=0
  wait_for 60 MariaDB sql -e 'SELECT 1'
}

start_rabbitmq() {
  mkdir -p "$DATA/rabbitmq"
  start epmd epmd -address $HOST
  start rabbitmq env HOME="$DATA/rabbitmq" ERL_EPMD_ADDRESS=$HOST \
    RABBITMQ_NODENAME=devcloud@localhost RABBITMQ_NODE_IP_ADDRESS=$HOST RABBITMQ_NODE_PORT=5672 \
    RABBITMQ_CONFIG_FILE="$ETC/rabbitmq" RABBITMQ_MNESIA_BASE="$DATA/rabbitmq" \
    RABBITMQ_LOG_BASE="$LOG" RABBITMQ_PID_FILE="$DATA/rabbitmq/pid" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$ETC/rabbitmq.plugins" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none" \
    /usr/lib/rabbitmq/bin/rabbitmq-server
  wait_for 90 RabbitMQ bash -c "exec 3<>/dev/tcp/$HOST/5672"
}
