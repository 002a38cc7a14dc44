#!/bin/sh
# The HAProxy that comes with Ray ($OFFSFT_HAPROXY), as our services need it; services/ingress.py has Ray run this.
# Ray writes the config and rewrites it as replicas come and go, so it is changed here each time before it is read.
ports="${RAY_SERVE_HAPROXY_STATS_PORT:-8404}|${RAY_SERVE_HAPROXY_METRICS_PORT:-9101}"
errors="$(dirname "$0")/unavailable.http"
for argument in "$@"; do
    case "$argument" in
    *.cfg)
        [ -w "$argument" ] || continue
        # Its statistics and metrics need no token, so they listen on this machine only; Ray's config opens them to all.
        sed -i -E "s/^( *bind )\*?:($ports)\$/\1127.0.0.1:\2/" "$argument"
        # Where no replica answers: 503 in our form of errors, with Retry-After; Ray's config says 500 in plain text.
        sed -i -E "s|^( *errorfile 50[234]) .*|\1 $errors|" "$argument"
        grep -q "# offsft" "$argument" && continue
        # A client's header must arrive in time, and one address may hold so many connections and no more.
        sed -i -E "s/^defaults\$/defaults\n    # offsft\n    timeout http-request ${OFFSFT_HEADER_S:-10}s/" "$argument"
        sed -i -E "s/^(frontend http_frontend)\$/\1\n    stick-table type ipv6 size 100k expire 1m store conn_cur\n    tcp-request connection track-sc0 src\n    tcp-request connection reject if { sc0_conn_cur gt ${OFFSFT_CONNECTIONS_PER_ADDRESS:-1024} }/" "$argument"
        # TLS: $OFFSFT_TLS is the certificate's chain, with its key beside it as $OFFSFT_TLS.key.
        [ -n "${OFFSFT_TLS:-}" ] || continue
        sed -i -E "s/^(frontend http_frontend)\$/\1\n    http-request set-header x-forwarded-proto https/" "$argument"
        sed -i -E "/^frontend http_frontend\$/,/^(backend|listen|frontend [^h])/s|^( *bind [^ ]+)\$|\1 ssl crt $OFFSFT_TLS alpn http/1.1|" "$argument"
        ;;
    esac
done
# -dS: while it splices, HAProxy 2.8 does not see that a client went away before its answer began.
exec "$OFFSFT_HAPROXY" -dS "$@"
