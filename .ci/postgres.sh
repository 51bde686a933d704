# A PostgreSQL server for one run of the tests, from Debian's packages, on a socket in a folder of
# its own. Without the packages its tests are skipped, and say so.

start_postgres() {
    local bin
    bin=$(postgres_programs)
    if [ -z "$bin" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        # A mirror that does not answer must not cost the tests their time.
        timeout 300 sh -c 'apt-get update && apt-get install -y --no-install-recommends postgresql' \
            > /dev/null 2>&1 || true
        bin=$(postgres_programs)
    fi
    if [ -z "$bin" ]; then
        echo "no PostgreSQL here (Debian package postgresql): its tests are skipped"
        return
    fi
    postgres_folder=$(mktemp -d)
    # PostgreSQL refuses to run as root.
    postgres_as=()
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$postgres_folder"
        postgres_as=(runuser -u postgres --)
    fi
    "${postgres_as[@]}" "$bin/initdb" -D "$postgres_folder/data" -A trust -U toxbench > /dev/null
    "${postgres_as[@]}" "$bin/pg_ctl" -D "$postgres_folder/data" -l "$postgres_folder/log" -w \
        -o "-c listen_addresses='' -c fsync=off -k $postgres_folder" start > /dev/null
    postgres_stop=("${postgres_as[@]}" "$bin/pg_ctl" -D "$postgres_folder/data" -m fast stop)
    export TOXBENCH_POSTGRES="postgresql+psycopg://toxbench@/postgres?host=$postgres_folder"
}

stop_postgres() {
    if [ -n "${postgres_folder:-}" ]; then
        "${postgres_stop[@]}" > /dev/null || true
        rm -rf "$postgres_folder"
    fi
}

postgres_programs() {
    ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -1 || true
}
