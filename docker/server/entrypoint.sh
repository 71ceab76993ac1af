#!/bin/sh
# Run the server of this image, with the arguments as its options. On the first start it makes the data folder and the
# users that these variables name, as the public images do: MYSQL_ROOT_PASSWORD (required), MYSQL_DATABASE, MYSQL_USER
# and MYSQL_PASSWORD. The binlog has none of this.
set -eu

data=/var/lib/mysql
first=/var/run/mysqld/first.sql
bootstrap=/bootstrap.sql # MariaDB's system tables; empty for MySQL, which makes its own
server=mysqld
[ ! -s "$bootstrap" ] || server=mariadbd

refuse() {
    echo "entrypoint: $1" >&2
    exit 1
}

first_statements() {
    echo "SET SESSION sql_log_bin=0;"
    echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
    echo "CREATE USER 'root'@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
    echo "GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    if [ -n "${MYSQL_DATABASE:-}" ]; then
        echo "CREATE DATABASE \`$MYSQL_DATABASE\`;"
    fi
    if [ -n "${MYSQL_USER:-}" ] && [ "$MYSQL_USER" != root ]; then
        echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '${MYSQL_PASSWORD:?is needed with MYSQL_USER}';"
        if [ -n "${MYSQL_DATABASE:-}" ]; then
            echo "GRANT ALL PRIVILEGES ON \`$MYSQL_DATABASE\`.* TO '$MYSQL_USER'@'%';"
        fi
    fi
}

if [ ! -d "$data/mysql" ]; then
    : "${MYSQL_ROOT_PASSWORD:?must be set to make a new server}"
    case "$MYSQL_ROOT_PASSWORD${MYSQL_DATABASE:-}${MYSQL_USER:-}${MYSQL_PASSWORD:-}" in
    *[\'\`\\]*) refuse "names and passwords must not contain quotes or backslashes" ;;
    esac
    if [ "$server" = mariadbd ]; then
        mariadbd --no-defaults --datadir="$data" --bootstrap --skip-log-bin <"$bootstrap"
    else
        mysqld --no-defaults --datadir="$data" --initialize-insecure
    fi
    (umask 077 && first_statements >"$first")
    set -- --init-file="$first" "$@"
fi

exec "$server" --no-defaults --datadir="$data" --socket=/var/run/mysqld/mysqld.sock "$@"
